// The label as OHIF holds and shows it: one picture for each frame of the scan, tied to the frame by its DICOM name.

const ID = 'msklabel';
const LABELMAP = 'Labelmap';

const cornerstone = () => window.cornerstone;
const segmentation = () => window.cornerstoneTools.segmentation;

// The display set of a series, once OHIF has it; undefined before.
export const displaySetOf = (services, series) =>
  services.displaySetService
    .getActiveDisplaySets()
    .find(set => set.SeriesInstanceUID === series && set.imageIds?.length);

// The viewport that shows a display set, once it is drawn; the active one is given the set where none does.
export function viewportOf(services, displaySet) {
  const { viewportGridService, cornerstoneViewportService } = services;
  const { viewports, activeViewportId } = viewportGridService.getState();
  const uid = displaySet.displaySetInstanceUID;
  const shown = [...viewports.values()].find(viewport => viewport.displaySetInstanceUIDs?.includes(uid));
  if (!shown && activeViewportId) {
    viewportGridService.setDisplaySetsForViewport({ viewportId: activeViewportId, displaySetInstanceUIDs: [uid] });
  }
  const viewport = shown && cornerstoneViewportService.getCornerstoneViewport(shown.viewportId);
  return viewport?.getImageIds?.().length ? shown.viewportId : undefined;
}

// [SOP Instance UID, number of the frame], as the server names it.
function frameOf(imageId) {
  const number = /[/&?]frames?[/=](\d+)/.exec(imageId);
  return [cornerstone().metaData.get('instance', imageId).SOPInstanceUID, number ? Number(number[1]) : 1];
}

const keyOf = ([uid, number]) => `${uid}/${number}`;

// The pictures of our label, each with the frame that it lies on.
function pictures() {
  const { imageIds } = segmentation().state.getSegmentation(ID).representationData[LABELMAP];
  return imageIds.map(id => {
    const image = cornerstone().cache.getImage(id);
    if (!image) throw new Error('the viewer has lost a part of the label; reload the page');
    return { image, frame: frameOf(image.referencedImageId) };
  });
}

// Start an empty label on a display set, with the names and colours of a system.
export async function startLabel(services, viewportId, displaySet, labels) {
  const { segmentationService } = services;
  if (segmentationService.getSegmentation(ID)) segmentationService.remove(ID);
  const segments = Object.fromEntries(
    labels.map(({ name, index }, place) => [
      index,
      { segmentIndex: index, label: name, active: place === 0, locked: false, cachedStats: {} },
    ])
  );
  await segmentationService.createLabelmapForDisplaySet(displaySet, { segmentationId: ID, label: ID, segments });
  await segmentationService.addSegmentationRepresentation(viewportId, { segmentationId: ID, type: LABELMAP });
  labels.forEach(({ index, color }) => segmentationService.setSegmentColor(viewportId, ID, index, [...color, 255]));
  segmentationService.setActiveSegmentation(viewportId, ID);
  segmentationService.setActiveSegment(ID, labels[0].index);
}

// Show a label that came from the server; where `only` is given, in those frames alone. Those in `kept` stay as they are.
export function showLabel({ frames, pixels, columns, rows }, only = null, kept = new Set()) {
  const place = new Map(frames.map((frame, number) => [keyOf(frame), number]));
  for (const { image, frame } of pictures()) {
    const number = place.get(keyOf(frame));
    if (number === undefined || image.columns !== columns || image.rows !== rows) {
      throw new Error('the viewer shows another scan than the label was made for; reload the page');
    }
    if (kept.has(number) && !only?.has(number)) continue;
    const size = columns * rows;
    const wanted = pixels && (!only || only.has(number));
    const values = wanted ? pixels.subarray(number * size, (number + 1) * size) : new Uint8Array(size);
    image.voxelManager.getScalarData().set(values);
  }
  segmentation().triggerSegmentationEvents.triggerSegmentationDataModified(ID);
}

// The label as it is on the screen: the frames in the viewer's order, and their pixels one after the other.
export function readLabel(services, viewportId) {
  const shown = services.segmentationService.getSegmentationRepresentations(viewportId);
  if (!shown.some(one => one.segmentationId === ID) || shown.some(one => one.segmentationId !== ID)) {
    throw new Error('show the segmentation msklabel, and no other, so that what you see is what is submitted');
  }
  const hidden = segmentation().config.visibility.getHiddenSegmentIndices(viewportId, {
    segmentationId: ID,
    type: LABELMAP,
  });
  if (hidden.size) throw new Error('some labels are hidden; show them, so that what you see is what is submitted');
  const parts = pictures();
  const size = parts.length ? parts[0].image.columns * parts[0].image.rows : 0;
  const pixels = new Uint8Array(parts.length * size);
  parts.forEach(({ image }, number) => pixels.set(image.voxelManager.getScalarData(), number * size));
  return { frames: parts.map(part => part.frame), pixels };
}

export const chooseLabel = (services, index) => services.segmentationService.setActiveSegment(ID, index);

// Where the viewer shows a frame among the others of the scan, from 0; it may run against the server's order.
export function placeOf(services, viewportId, frame) {
  const viewport = services.cornerstoneViewportService.getCornerstoneViewport(viewportId);
  return viewport.getImageIds().findIndex(id => keyOf(frameOf(id)) === keyOf(frame));
}

export function turnTo(services, viewportId, frame) {
  const viewport = services.cornerstoneViewportService.getCornerstoneViewport(viewportId);
  const imageIndex = placeOf(services, viewportId, frame);
  if (imageIndex >= 0) cornerstone().utilities.jumpToSlice(viewport.element, { imageIndex });
}

// Whether anything was drawn or changed since it was last told.
export function watchChanges(services, changed) {
  const { segmentationService } = services;
  segmentationService.subscribe(segmentationService.EVENTS.SEGMENTATION_DATA_MODIFIED, changed);
}
