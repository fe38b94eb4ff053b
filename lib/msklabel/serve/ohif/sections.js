// What the panel shows, drawn from its state.
import { button, choice, element, labelled } from './dom.js';

const NOTE = 'Drafts are to be corrected, not measured. Not for clinical use.';
const STATES = { submitted: 'submitted, not reviewed yet', accepted: 'accepted', rejected: 'rejected', reopened: 'to be made again' };

const find = (panel, id) => panel.root.querySelector(`#msk-${id}`);
const heading = text => element('h3', { textContent: text });
const small = (text, id) => element('div', { className: 'msk-small', textContent: text, ...(id && { id: `msk-${id}` }) });
const row = (...children) => element('div', { className: 'msk-row' }, ...children);

function title(panel) {
  const name = panel.user && panel.user.username;
  return element(
    'div',
    {},
    row(
      element('h2', { textContent: 'msklabel', style: { flex: 1 } }),
      name ? button('signout', `Sign out ${name}`, () => panel.signOut(), { style: { flex: 'none' } }) : null
    ),
    small(NOTE)
  );
}

function signIn(panel) {
  const name = element('input', { id: 'msk-user', autocomplete: 'username' });
  const token = element('input', { id: 'msk-token', type: 'password', autocomplete: 'current-password' });
  const send = event => {
    event.preventDefault();
    panel.signIn(name.value, token.value);
  };
  const form = element('form', { onsubmit: send }, labelled('User', name), labelled('Token', token));
  form.append(row(element('button', { id: 'msk-signin', className: 'msk-main', textContent: 'Sign in' })));
  const parts = [heading('Sign in')];
  if (panel.ways?.tokens !== false) parts.push(form);
  if (panel.ways?.openid) {
    const back = encodeURIComponent(location.pathname + location.search);
    parts.push(row(button('openid', 'Sign in with the hospital account', () => location.assign(`/auth/openid?next=${back}`))));
  }
  return parts;
}

function work(panel) {
  const systems = Object.entries(panel.systems).map(([name, system]) => [name, system.title]);
  const strategies = panel.strategies.map(name => [name, name.replaceAll('_', ' ')]);
  return [
    heading('Next scan'),
    labelled('System', choice('system', systems, panel.system, name => panel.chooseSystem(name))),
    labelled('Chosen by', choice('strategy', strategies, panel.strategy, name => panel.chooseStrategy(name))),
    row(
      button('next', 'Next scan', () => panel.nextScan(), {
        className: panel.scan ? '' : 'msk-main',
        disabled: panel.busy || !panel.strategies.length, // what there is to choose from is not known yet
      }),
      button('skip', 'Skip', () => panel.skip(), { disabled: panel.busy || !panel.scan })
    ),
    small('', 'why'),
  ];
}

function draft(panel) {
  const models = (panel.systems[panel.system]?.models || []).map(({ name, version, ready }) => [
    name,
    ready ? `${name} (${version || 'no training'})` : `${name} (not trained yet)`,
  ]);
  const run = panel.running
    ? button('cancel', 'Stop', () => panel.running.abort.abort())
    : button('segment', 'Segment', () => panel.segment(), { disabled: panel.busy || !panel.scan?.label });
  return [
    heading('Draft'),
    labelled('Model', choice('model', models, panel.model, name => (panel.model = name))),
    row(run),
    element('div', { id: 'msk-progress' }),
  ];
}

function labels(panel) {
  const list = panel.systems[panel.system]?.labels || [];
  return [
    heading('Labels'),
    ...list.map(({ name, index, color }, place) =>
      element(
        'button',
        {
          type: 'button',
          className: 'msk-label',
          data: { index },
          ariaPressed: String(index === (panel.active ?? list[0].index)),
          disabled: !panel.scan?.label,
          onclick: () => panel.chooseLabel(index),
          id: `msk-label-${place}`,
        },
        element('span', { className: 'msk-swatch', style: { background: `rgb(${color.join(' ')})` } }),
        name.replaceAll('_', ' ')
      )
    ),
  ];
}

function slices(panel) {
  const plan = panel.scan?.label && panel.scan.plan;
  if (!plan || plan.axis !== 2 || panel.scan.label.frames.length < 2) return [];
  const count = element('input', { type: 'number', min: 1, max: 99, value: panel.count, id: 'msk-count' });
  count.onchange = () => panel.attempt(() => panel.plan(Math.min(99, Math.max(1, Math.round(Number(count.value)) || 1))));
  const only = element('input', { type: 'checkbox', id: 'msk-only', checked: panel.scan.only });
  only.onchange = () => panel.chooseOnly(only.checked);
  return [
    heading('Slices to draw'),
    row(
      ...panel
        .slices()
        .map(([shown, index]) => button(`slice-${index}`, String(shown), () => panel.turnTo(index), { style: { flex: 'none' } }))
    ),
    small(plan.reason),
    labelled('How many', count),
    element('label', {}, only, ' only these are drawn, the rest is unknown'),
  ];
}

function submission(panel) {
  const label = panel.scan?.label;
  const known = label?.version
    ? `Version ${label.version} by ${label.author || 'a model'}: ${label.tag === 'final' ? STATES[label.state] : 'a draft'}` +
      `${label.reason ? ` (${label.reason})` : ''}`
    : 'No label yet';
  const may = panel.user.roles?.includes('annotator');
  const parts = [
    heading('Submit'),
    small(panel.scan ? known : 'No scan is open', 'state'),
    row(button('submit', 'Submit', () => panel.submit(), { className: 'msk-main', disabled: panel.busy || !label || !may })),
  ];
  if (label?.tag === 'final' && panel.user.roles?.includes('reviewer')) {
    parts.push(
      row(
        button('accept', 'Accept', () => panel.review('accepted', ''), { disabled: panel.busy }),
        button('reject', 'Reject …', () => {
          const reason = prompt('What is to be mended?');
          if (reason) panel.review('rejected', reason);
        })
      )
    );
  }
  return parts;
}

function statusText(system) {
  if (!system) return '';
  const version = system.version ? `Serving ${system.version}.` : 'No version in service yet.';
  const { training, labels_done: done } = system;
  if (!training) return `${version} ${done} scans have a label.`;
  const epochs = training.total_epochs ? `, epoch ${training.epoch} of ${training.total_epochs}` : '';
  return `${version} Training ${training.status.toLowerCase()}${epochs}.`;
}

export const sections = {
  all(panel) {
    if (panel.user === null) return [title(panel), small('…')];
    const said = element('div', { id: 'msk-said', role: 'status', className: 'msk-said' });
    if (!panel.user) {
      queueMicrotask(() => this.drawSaid(panel));
      return [title(panel), ...signIn(panel), said];
    }
    queueMicrotask(() => {
      this.drawSaid(panel);
      this.drawProgress(panel);
      this.drawWhy(panel);
      this.drawStatus(panel);
    });
    const parts = [...work(panel), ...draft(panel), ...labels(panel), ...slices(panel), ...submission(panel), said];
    return [title(panel), ...parts, heading('Model'), small('', 'status')];
  },

  drawSaid(panel) {
    const place = find(panel, 'said');
    if (!place) return;
    place.textContent = panel.said.text;
    place.classList.toggle('msk-wrong', panel.said.wrong);
    place.hidden = !panel.said.text;
  },

  drawWhy(panel) {
    const place = find(panel, 'why');
    if (place) place.textContent = panel.scan?.why ? `This one: ${panel.scan.why}` : '';
  },

  drawStatus(panel) {
    const place = find(panel, 'status');
    if (place) place.textContent = statusText(panel.systems[panel.system]);
  },

  drawProgress(panel) {
    const place = find(panel, 'progress');
    if (!place) return;
    const step = panel.running?.step;
    if (!panel.running) return place.replaceChildren();
    const bar = step?.of ? element('progress', { max: step.of, value: step.done }) : element('progress');
    const text = !step
      ? 'asking …'
      : step.state === 'waiting'
        ? `waiting, ${step.before} before this one`
        : `${step.of ? `${step.done} of ${step.of} parts, ` : ''}${step.seconds} s`;
    place.replaceChildren(bar, small(text));
  },
};
