// Our panel beside OHIF: sign in, the next scan, a draft of it, what to draw, submit.
import * as labelmap from './labelmap.js';
import * as server from './server.js';
import { element } from './dom.js';
import { sections } from './sections.js';

const POLL_MS = 5000;
const LOOK_MS = 400;
const SLICES = 5;

const remembered = name => sessionStorage.getItem(`msklabel.${name}`) || '';
const remember = (name, value) => sessionStorage.setItem(`msklabel.${name}`, value);

// The series that the address asks for; parameters are OHIF's, which reads them in any case.
function asked() {
  const values = new Map([...new URLSearchParams(location.search)].map(([key, value]) => [key.toLowerCase(), value]));
  return { series: values.get('initialseriesinstanceuid') || '', study: values.get('studyinstanceuids') || '' };
}

class Panel {
  constructor(services, root) {
    this.services = services;
    this.root = root;
    this.user = null; // null: not known yet; false: has to sign in
    this.systems = {};
    this.strategies = [];
    this.system = remembered('system');
    this.strategy = remembered('strategy');
    this.model = '';
    this.count = Number(remembered('count')) || SLICES;
    this.onlySlices = remembered('only') === 'yes';
    this.said = { text: '', wrong: false };
    this.scan = null; // { image, viewportId, displaySet, label, plan, why }
    this.opening = false;
    this.watching = false;
    this.running = null; // of a segmentation: { abort, step }
    this.changed = false;
  }

  // Draw the panel; ends only once somebody is signed in, so that OHIF is not refused what it asks for.
  async start() {
    this.ways = await server.signInWays();
    try {
      this.user = await server.whoAmI();
    } catch (error) {
      this.user = false;
    }
    this.draw();
    if (!this.user) await new Promise(signedIn => (this.signedIn = signedIn));
    await this.refresh();
    setInterval(() => this.refresh().catch(() => {}), POLL_MS);
  }

  // What changes without us: versions, trainings.
  async refresh() {
    const first = !this.strategies.length;
    this.systems = await server.getSystems();
    if (first) {
      this.strategies = Object.keys((await server.getInfo()).strategies);
      if (!this.systems[this.system]) this.chooseSystem(Object.keys(this.systems)[0]);
      if (!this.strategies.includes(this.strategy)) this.strategy = this.strategies[0];
      this.chooseModel();
      this.draw();
    } else {
      sections.drawStatus(this);
    }
  }

  draw() {
    this.root.replaceChildren(...sections.all(this));
  }

  say(text, wrong = false) {
    this.said = { text, wrong };
    sections.drawSaid(this);
  }

  // Do something that may fail; one at a time.
  async attempt(work) {
    if (this.busy) return;
    this.busy = true;
    this.say('');
    this.draw();
    try {
      await work();
    } catch (error) {
      if (error.status === 401 && this.user) location.reload(); // the session is over
      this.say(error.message, true);
    } finally {
      this.busy = false;
      this.draw();
    }
  }

  signIn(name, password) {
    return this.attempt(async () => {
      await server.signIn(name, password);
      this.user = await server.whoAmI();
      this.signedIn();
    });
  }

  async signOut() {
    await server.signOut();
    location.reload();
  }

  chooseSystem(name) {
    this.system = name;
    remember('system', name);
    this.chooseModel();
    const scan = this.scan;
    this.scan = null; // the label of the other system is loaded
    if (scan) this.draw();
  }

  chooseModel() {
    const models = this.systems[this.system]?.models || [];
    this.model = (models.find(model => model.ready) || models[0])?.name || '';
  }

  chooseStrategy(name) {
    this.strategy = name;
    remember('strategy', name);
  }

  chooseOnly(only) {
    this.onlySlices = only;
    this.scan.only = only;
    remember('only', only ? 'yes' : '');
  }

  // How many slices of a scan are to be drawn; 0 for all.
  someSlices() {
    return this.onlySlices ? this.count : 0;
  }

  nextScan() {
    return this.attempt(async () => {
      const next = await server.nextScan(this.strategy, this.system, this.someSlices());
      if (!next.id) return this.say('All scans of this system have a label.');
      remember('plan', next.slices ? JSON.stringify({ ...next.slices, image: next.SeriesInstanceUID, system: this.system }) : '');
      const address = new URLSearchParams({
        StudyInstanceUIDs: next.StudyInstanceUID,
        initialSeriesInstanceUID: next.SeriesInstanceUID,
      });
      location.assign(`/ohif/segmentation?${address}`);
      this.say('Opening the next scan …');
    });
  }

  // Wait until OHIF shows the series that the address asks for, then put its label on it.
  async look() {
    const { series } = asked();
    if (!series || !this.system || this.opening || this.busy) return;
    if (this.scan?.image === series) return;
    const displaySet = labelmap.displaySetOf(this.services, series);
    const viewportId = displaySet && labelmap.viewportOf(this.services, displaySet);
    if (!viewportId) return;
    if (!this.watching) labelmap.watchChanges(this.services, () => (this.changed = true));
    this.watching = true;
    this.opening = true;
    await this.attempt(() => this.open(series, displaySet, viewportId));
    this.opening = false;
  }

  async open(image, displaySet, viewportId) {
    this.scan = { image, displaySet, viewportId, label: null, plan: null, why: '' };
    const label = await server.getLabel(image, this.system);
    this.scan.only = this.onlySlices || Boolean(label.tag === 'final' && label.annotated?.slices);
    await labelmap.startLabel(this.services, viewportId, displaySet, this.systems[this.system].labels);
    const served = JSON.parse(remembered('plan') || '{}'); // for the label whose turn it was
    if (served.image === image && served.system === this.system) this.scan.plan = served;
    else await this.plan(this.count).catch(error => this.say(error.message, true));
    labelmap.showLabel(label, label.tag === 'original' ? this.shownOfDraft() : null);
    this.scan.label = label;
    this.scan.from = label.model_version;
    this.changed = false;
    this.explain(image);
    if (this.some && this.scan.plan.indices.length) this.turnTo(this.scan.plan.indices[0]);
    this.root.dataset.ready = image;
  }

  async explain(image) {
    const said = await server
      .explainScan(image, this.strategy, this.system, this.someSlices())
      .catch(error => ({ reason: error.message }));
    if (this.scan?.image === image) this.scan.why = said.rank ? `${said.rank} of ${said.of}: ${said.reason}` : said.reason;
    sections.drawWhy(this);
  }

  async plan(count) {
    this.scan.plan = null;
    this.scan.plan = await server.slicesToDraw(this.scan.image, this.system, count);
    this.count = count;
    remember('count', String(count));
    remember('plan', '');
  }

  // Whether some slices of the open scan are to be drawn, which must be pictures of the series.
  get some() {
    return Boolean(this.scan?.only && this.scan.plan?.axis === 2);
  }

  // The slices to draw as the viewer counts them, from 1, with their number on the server.
  slices() {
    const { plan, label, viewportId } = this.scan;
    const shown = plan.indices.map(index => [labelmap.placeOf(this.services, viewportId, label.frames[index]) + 1, index]);
    return shown.sort((a, b) => a[0] - b[0]);
  }

  // The slices in which a draft is shown; null for all.
  shownOfDraft() {
    return this.some ? new Set(this.scan.plan.indices) : null;
  }

  // The slices that the submitted label speaks of; null where that is the whole scan.
  drawnBefore() {
    const { label } = this.scan;
    return label.tag === 'final' ? label.annotated?.slices || null : [];
  }

  // What a submission speaks of: the slices to draw, and those that were drawn before; null for all.
  annotated() {
    const { plan, label, only } = this.scan;
    const before = this.drawnBefore();
    if (!only) return null;
    if (!before || (!this.some && before.length)) return label.annotated || null; // as it was
    if (!plan) throw new Error('which slices are to be drawn is not known; reload the page');
    if (!this.some) return null;
    const kept = label.annotated?.axis === plan.axis ? before : [];
    return { ...label.annotated, axis: plan.axis, slices: [...new Set([...kept, ...plan.indices])] };
  }

  turnTo(index) {
    labelmap.turnTo(this.services, this.scan.viewportId, this.scan.label.frames[index]);
  }

  chooseLabel(index) {
    this.active = index;
    labelmap.chooseLabel(this.services, index);
    this.draw();
  }

  segment() {
    if (this.changed && !confirm('Replace what is drawn by the draft of the model?')) return undefined;
    return this.attempt(async () => {
      this.running = { abort: new AbortController(), step: null };
      this.draw();
      try {
        const told = step => {
          this.running.step = step;
          sections.drawProgress(this);
        };
        const draft = await server.segment(this.scan.image, this.model, told, this.running.abort.signal);
        const only = this.shownOfDraft();
        const before = this.drawnBefore() || this.scan.label.frames.keys();
        labelmap.showLabel(draft, only, new Set(only ? before : []));
        this.scan.from = draft.model_version;
        this.changed = false;
        this.say(['A draft, not a measurement: correct it.', ...(draft.warnings || [])].join(' '));
      } catch (error) {
        if (error.name !== 'AbortError') throw error;
        this.say('Stopped.');
      } finally {
        this.running = null;
      }
    });
  }

  submit() {
    return this.attempt(async () => {
      const { image, viewportId } = this.scan;
      const label = labelmap.readLabel(this.services, viewportId);
      const notes = { model_version: this.scan.from || null };
      const annotated = this.annotated();
      if (annotated) notes.annotated = annotated;
      const send = extra => server.submitLabel(image, this.system, label, { ...notes, ...extra });
      const { tag, version } = this.scan.label;
      const stored = await send({ opened: tag === 'final' ? version : 0 }).catch(error => {
        const anew = 'Store yours as the newest all the same? If not, reload the page to see the other one.';
        if (error.status !== 409 || !confirm(`${error.message}. ${anew}`)) throw error;
        return send();
      });
      remember('plan', '');
      const fresh = await server.getLabel(image, this.system);
      this.scan.label = { ...fresh, pixels: null };
      this.changed = false;
      this.say([`Stored as version ${stored.version}.`, ...stored.warnings].join(' '));
    });
  }

  review(state, reason) {
    return this.attempt(async () => {
      await server.review(this.scan.label.version, state, reason);
      this.scan.label = { ...(await server.getLabel(this.scan.image, this.system)), pixels: null };
    });
  }

  skip() {
    return this.attempt(async () => {
      await server.skipScan(this.scan.image);
      this.busy = false;
      await this.nextScan();
    });
  }
}

export async function openPanel(services) {
  const root = element('aside', { id: 'msklabel', ariaLabel: 'msklabel' });
  document.body.append(root);
  document.body.classList.add('msklabel');
  const panel = new Panel(services, root);
  await panel.start().catch(error => panel.say(error.message, true));
  setInterval(() => panel.look(), LOOK_MS);
}
