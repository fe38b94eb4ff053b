// An annotator in OHIF: opens the next scan, has it segmented, draws with the brush, submits. Says what the screen held.
//   node ohif.mjs '{"playwright": DIR, "chromium": FILE, "url": URL, "user": .., "token": .., "pictures": DIR, "label": 2}'
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
  await page.click('#msk-next:not([disabled])');
  await page.waitForURL(/\/ohif\/segmentation/);
  return page.locator('#msklabel[data-ready]').getAttribute('data-ready');
}

async function draw(page) {
  await page.click(`[data-index="${options.label}"]`);
  await page.click('[data-cy="Brush-btn"], [data-cy="Brush"]');
  const canvas = await page.locator('[data-cy="viewport-pane"] canvas').first().boundingBox();
  const at = (x, y) => [canvas.x + canvas.width * x, canvas.y + canvas.height * y];
  await page.mouse.move(...at(0.42, 0.5));
  await page.mouse.down();
  await page.mouse.move(...at(0.5, 0.52), { steps: 8 });
  await page.mouse.move(...at(0.58, 0.5), { steps: 8 });
  await page.mouse.up();
}

const flags = ['--no-sandbox', '--disable-quic', '--no-first-run', '--disable-background-networking'];
flags.push('--disable-component-update', '--disable-sync');
flags.push('--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader');
const browser = await chromium.launch({ executablePath: options.chromium, args: flags, timeout: PATIENCE_MS });
const page = await browser.newPage({ viewport: { width: 1280, height: 960 } });
page.setDefaultTimeout(PATIENCE_MS);
const said = { errors: [] };
page.on('pageerror', error => said.errors.push(error.message));
const picture = name => page.screenshot({ path: `${options.pictures}/${name}.png` });
try {
  await signIn(page);
  said.image = await nextScan(page);
  said.why = await page.locator('#msk-why').textContent();
  await picture('1-next-scan');
  await page.click('#msk-segment:not([disabled])');
  await page.locator('#msk-said', { hasText: 'draft' }).waitFor();
  said.draft = await page.evaluate(onScreen);
  await picture('2-segmented');
  await draw(page);
  said.drawn = await page.evaluate(onScreen);
  await picture('3-drawn');
  await page.click('#msk-submit:not([disabled])');
  await page.locator('#msk-said', { hasText: 'Stored as version' }).waitFor();
  said.stored = await page.locator('#msk-said').textContent();
  said.state = await page.locator('#msk-state').textContent();
  await picture('4-submitted');
} catch (error) {
  said.failed = error.message;
  said.panel = await page.locator('#msklabel').innerText().catch(() => 'no panel');
  await picture('failed').catch(() => {});
}
await browser.close();
fs.writeFileSync(options.answer, JSON.stringify(said));
