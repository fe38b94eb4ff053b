// An annotator in OHIF: opens the next scan, stops a segmentation, has it segmented, draws, erases, fills by threshold,
// submits; then draws two slices of the other scan, and when he is given it again, two more; and submits from a tab that
// was open meanwhile. Says what the screen held.
//   node ohif.mjs '{"playwright": DIR, "chromium": FILE, "url": URL, "user": .., "token": .., "pictures": DIR,
//                  "drawn": 2, "filled": 5}'
import fs from 'node:fs';
import { createRequire } from 'node:module';

const options = JSON.parse(process.argv[2]);
const { chromium } = createRequire(import.meta.url)(options.playwright);
const PATIENCE_MS = 90_000;

// The label as cornerstone holds it for the screen: base64 of the pixels of each image, by SOP Instance UID.
const onScreen = () => {
  const { imageIds } = window.cornerstoneTools.segmentation.state.getSegmentation('msklabel').representationData.Labelmap;
  const held = {};
  for (const id of imageIds) {
    const image = window.cornerstone.cache.getImage(id);
    const values = Uint8Array.from(image.voxelManager.getScalarData());
    const uid = window.cornerstone.metaData.get('instance', image.referencedImageId).SOPInstanceUID;
    held[uid] = btoa(Array.from(values, value => String.fromCharCode(value)).join(''));
  }
  return held;
};

async function signIn(page) {
  await page.goto(`${options.url}/ohif/`);
  await page.fill('#msk-user', options.user);
  await page.fill('#msk-token', options.token);
  await page.click('#msk-signin');
}

async function nextScan(page) {
  const opened = page.waitForEvent('load');
  await page.click('#msk-next:not([disabled])');
  await opened;
  await page.waitForURL(/\/ohif\/segmentation/);
  return page.locator('#msklabel[data-ready]').getAttribute('data-ready');
}

// The reason comes after the scan.
const reason = page => page.locator('#msk-why', { hasText: 'This one' }).textContent();

async function submit(page) {
  await page.click('#msk-submit:not([disabled])');
  await page.locator('#msk-said', { hasText: 'Stored as version' }).waitFor();
  return page.locator('#msk-said').textContent();
}

// Press Stop as soon as the server works on it; where it was done before that, once more.
async function stop(page) {
  for (let times = 0; times < 5; times++) {
    const sent = page.waitForRequest(/viewer\/segment/);
    await page.click('#msk-segment:not([disabled])');
    await sent;
    await page.evaluate(() => document.querySelector('#msk-cancel')?.click());
    const said = page.locator('#msk-said', { hasText: /Stopped|draft/ });
    await said.waitFor();
    if ((await said.textContent()).includes('Stopped')) return said.textContent();
  }
  throw new Error('the server was always faster than the annotator');
}

// Move one of OHIF's tools, or the one in hand, over the picture; places are fractions of its width and height.
async function stroke(page, tool, ...places) {
  if (tool) await page.click(`[data-cy="${tool}-btn"], [data-cy="${tool}"]`);
  const canvas = await page.locator('[data-cy="viewport-pane"] canvas').first().boundingBox();
  const [first, ...others] = places.map(([x, y]) => [canvas.x + canvas.width * x, canvas.y + canvas.height * y]);
  await page.mouse.move(...first);
  await page.mouse.down();
  for (const place of others) await page.mouse.move(...place, { steps: 8 });
  await page.mouse.up();
  return page.evaluate(onScreen);
}

// Between which values of the image the threshold tool fills.
const thresholds = () => {
  const tools = window.cornerstoneTools.ToolGroupManager.getAllToolGroups();
  const used = tools.map(group => group.getToolInstance('ThresholdCircularBrush')).find(Boolean);
  return used.configuration.threshold.range;
};

const flags = ['--no-sandbox', '--disable-quic', '--no-first-run', '--disable-background-networking'];
flags.push('--disable-component-update', '--disable-sync');
flags.push('--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader');
const browser = await chromium.launch({ executablePath: options.chromium, args: flags, timeout: PATIENCE_MS });
const context = await browser.newContext({ viewport: { width: 1280, height: 960 } });
context.setDefaultTimeout(PATIENCE_MS);
const page = await context.newPage();
const said = { errors: [] };
page.on('pageerror', error => said.errors.push(error.message));
const picture = name => page.screenshot({ path: `${options.pictures}/${name}.png` });
try {
  await signIn(page);
  said.image = await nextScan(page);
  said.why = await reason(page);
  await picture('1-next-scan');
  said.stopped = await stop(page);
  said.empty = await page.evaluate(onScreen);
  await page.click('#msk-segment:not([disabled])');
  await page.locator('#msk-said', { hasText: 'draft' }).waitFor();
  said.draft = await page.evaluate(onScreen);
  await picture('2-segmented');
  await page.click(`[data-index="${options.drawn}"]`);
  said.drawn = await stroke(page, 'Brush', [0.42, 0.5], [0.5, 0.52], [0.58, 0.5]);
  said.erased = await stroke(page, 'Eraser', [0.2, 0.5], [0.3, 0.48]);
  await page.click(`[data-index="${options.filled}"]`);
  await page.click('[data-cy="Threshold-btn"], [data-cy="Threshold"]');
  await page.getByText('Range', { exact: true }).click(); // instead of what is under the pointer
  said.filled = await stroke(page, null, [0.64, 0.5], [0.72, 0.5]);
  said.range = await page.evaluate(thresholds);
  await picture('3-drawn');
  said.stored = await submit(page);
  said.state = await page.locator('#msk-state').textContent();
  await picture('4-submitted');
  await page.check('#msk-only');
  await page.fill('#msk-count', '2');
  await page.press('#msk-count', 'Tab');
  await page.locator('[id^="msk-slice-"]').nth(2).waitFor({ state: 'detached' });
  said.some = [];
  for (let times = 0; times < 2; times++) {
    const image = await nextScan(page);
    const opened = await page.evaluate(onScreen);
    const slices = await page.locator('[id^="msk-slice-"]').count();
    await page.click('#msk-segment:not([disabled])');
    await page.locator('#msk-said', { hasText: 'draft' }).waitFor();
    const why = await reason(page);
    said.some.push({ image, opened, slices, why, draft: await page.evaluate(onScreen), stored: await submit(page) });
    await picture(`5-some-slices-${times + 1}`);
  }
  const stale = await context.newPage();
  stale.on('dialog', dialog => {
    said.asked = dialog.message();
    dialog.dismiss();
  });
  await stale.goto(page.url());
  await stale.locator('#msklabel[data-ready]').waitFor();
  await submit(page);
  await stale.click('#msk-submit:not([disabled])');
  await stale.locator('#msk-said', { hasText: 'since it was opened' }).waitFor();
} catch (error) {
  said.failed = error.message;
  said.panel = await page.locator('#msklabel').innerText().catch(() => 'no panel');
  await picture('failed').catch(() => {});
}
await browser.close();
fs.writeFileSync(options.answer, JSON.stringify(said));
