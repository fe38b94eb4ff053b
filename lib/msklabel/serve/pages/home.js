// Sections that were opened or closed stay so when the page loads anew, in this tab.
const KEY = 'msklabel-sections';
const kept = JSON.parse(sessionStorage.getItem(KEY) || '{}');
for (const section of document.querySelectorAll('details[id]')) {
  if (section.id in kept) section.open = kept[section.id];
  section.addEventListener('toggle', () => {
    kept[section.id] = section.open;
    sessionStorage.setItem(KEY, JSON.stringify(kept));
  });
}
