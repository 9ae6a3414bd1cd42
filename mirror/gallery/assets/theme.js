'use strict';
// Read before anything is painted: the theme that was chosen here before. Storage may be refused (private windows).
window.mirrorGallery = {
  themeChosen() {
    try {
      return localStorage.getItem('mirror-gallery-theme');
    } catch {
      return null;
    }
  },
  chooseTheme(name) {
    document.documentElement.dataset.theme = name;
    try {
      localStorage.setItem('mirror-gallery-theme', name);
    } catch {
      // It holds for this visit.
    }
  },
};
{
  const chosen = window.mirrorGallery.themeChosen();
  if (chosen === 'dark' || chosen === 'light') document.documentElement.dataset.theme = chosen;
}
