// Elements of a page; text is never read as HTML.
export function element(tag, properties = {}, ...children) {
  const { style, data, ...rest } = properties;
  const made = Object.assign(document.createElement(tag), rest);
  Object.assign(made.style, style);
  Object.assign(made.dataset, data);
  made.append(...children.filter(child => child !== null && child !== undefined));
  return made;
}

export const button = (id, text, onclick, properties = {}) =>
  element('button', { id: `msk-${id}`, type: 'button', textContent: text, onclick, ...properties });

export const choice = (id, values, chosen, onchange) =>
  element(
    'select',
    { id: `msk-${id}`, onchange: event => onchange(event.target.value) },
    ...values.map(([value, text]) => element('option', { value, textContent: text, selected: value === chosen }))
  );

export const labelled = (text, ...controls) => element('label', {}, element('span', { textContent: text }), ...controls);
