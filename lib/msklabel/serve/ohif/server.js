// What the panel asks of the server. The browser's session cookie says who it is.

// Without sign-in the server tells annotators apart by the name that their browser goes by.
export function clientName() {
  let name = localStorage.getItem('msklabel.client');
  if (!name) {
    name = `browser ${Array.from(crypto.getRandomValues(new Uint8Array(4)), byte => byte.toString(16)).join('')}`;
    localStorage.setItem('msklabel.client', name);
  }
  return name;
}

const query = values => new URLSearchParams({ ...values, client_id: clientName() }).toString();

// An answer as JSON; an error holds the server's one sentence and its status.
async function ask(method, path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { method, ...options });
  } catch (error) {
    throw error.name === 'AbortError' ? error : new Error('the server cannot be reached');
  }
  if (answer.ok) return options.raw ? answer : answer.json();
  const said = await answer.json().catch(() => ({}));
  throw Object.assign(new Error(said.detail || `the server answers ${answer.status}`), { status: answer.status });
}

const json = body => ({ headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });

export const signIn = (username, password) =>
  ask('POST', '/auth/session', { body: new URLSearchParams({ username, password }) });
export const signOut = () => ask('DELETE', '/auth/session');
export const signInWays = () => ask('GET', '/auth/');
export const whoAmI = () => ask('GET', '/auth/token/valid');

export const getInfo = () => ask('GET', '/info/');
export const getSystems = () => ask('GET', '/msk/viewer/systems');
export const nextScan = (strategy, system, slices) =>
  ask('POST', `/activelearning/${strategy}`, json({ model: system, client_id: clientName(), slices }));
export const explainScan = (image, strategy, system, slices) =>
  ask('GET', `/msk/next/explain?${query({ image, strategy, system, slices })}`);
export const skipScan = image => ask('POST', `/msk/skip?${query({ image })}`);
export const slicesToDraw = (image, system, k) => ask('GET', `/msk/slices?${query({ image, system, k })}`);
export const review = (version, state, reason) => ask('POST', '/msk/labels/review', json({ version, state, reason }));

export async function getLabel(image, system) {
  return unpacked(await ask('GET', `/msk/viewer/label?${query({ image, system })}`));
}

// Segment a scan; `told` gets each step. Aborting the signal ends the inference on the server, too.
export async function segment(image, model, told, signal) {
  const path = `/msk/viewer/segment?${query({ image, model })}`;
  const answer = await ask('POST', path, { raw: true, signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  let draft = null;
  for (;;) {
    const { value, done } = await reader.read();
    if (done && !draft) throw new Error('the server stopped in the middle of its answer');
    if (done) return unpacked(draft);
    text += value;
    const lines = text.split('\n');
    text = lines.pop();
    for (const step of lines.map(line => JSON.parse(line))) {
      if (step.state === 'failed') throw Object.assign(new Error(step.detail), { status: step.status });
      if (step.state === 'done') draft = step;
      else told(step);
    }
  }
}

export async function submitLabel(image, system, { frames, pixels }, notes) {
  const form = new FormData();
  form.append('params', JSON.stringify({ ...notes, frames, client_id: clientName() }));
  const packed = new Blob([pixels]).stream().pipeThrough(new CompressionStream('gzip'));
  form.append('label', await new Response(packed).blob(), 'label.gz');
  return ask('PUT', `/msk/viewer/label?${new URLSearchParams({ image, system })}`, { body: form });
}

// The answer with `pixels` in place of the packed text.
async function unpacked(answer) {
  if (!answer.labels) return { ...answer, pixels: null };
  const bytes = Uint8Array.from(atob(answer.labels), letter => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  return { ...answer, labels: null, pixels: new Uint8Array(await new Response(stream).arrayBuffer()) };
}
