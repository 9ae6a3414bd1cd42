'use strict';
// Elements are made here and nowhere else, and text goes in as text: nothing in this page turns a string into markup.
(() => {
  const gallery = window.mirrorGallery;

  // What moves, hides or turns text around, or shows nothing at all, is spelled out, so that a name reads as what it is.
  // A variation selector behind a picture sign is part of it.
  const UNSEEN =
    /(?!(?<=\p{Extended_Pictographic})[\ufe0e\ufe0f])[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028-\u202e\ufff9-\ufffb\p{Default_Ignorable_Code_Point}]/gu;

  function spelled(found) {
    const code = found.codePointAt(0).toString(16);
    return code.length > 4 ? `\\u{${code}}` : `\\u${code.padStart(4, '0')}`;
  }

  function visible(text) {
    return String(text).replace(UNSEEN, spelled);
  }

  // Attributes that people read, or have read to them.
  const SPOKEN = new Set(['title', 'alt', 'aria-label']);

  /**
   * An element. `attributes` are names and values (true: the bare attribute; null, undefined, false: none); `on…` are
   * listeners; `text` is its text; children are nodes, or strings that become text; null ones are left out.
   */
  function el(tag, attributes = {}, ...children) {
    const [name, ...classes] = tag.split('.');
    const made = document.createElement(name || 'div');
    if (classes.length) made.className = classes.join(' ');
    for (const [key, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
      else if (key === 'text') made.textContent = visible(value);
      else made.setAttribute(key, value === true ? '' : SPOKEN.has(key) ? visible(value) : value);
    }
    add(made, children);
    return made;
  }

  function add(parent, children) {
    for (const child of children.flat()) {
      if (child === null || child === undefined || child === false) continue;
      parent.append(child instanceof Node ? child : visible(child));
    }
  }

  const PATHS = {
    play: 'M8 5.6v12.8c0 .8.9 1.3 1.6.8l9.5-6.4c.6-.4.6-1.2 0-1.6L9.6 4.8C8.9 4.3 8 4.8 8 5.6z',
    stack:
      'M4 8.5A2.5 2.5 0 0 1 6.5 6h8A2.5 2.5 0 0 1 17 8.5v8a2.5 2.5 0 0 1-2.5 2.5h-8A2.5 2.5 0 0 1 4 16.5zM8 3h9a3.5 3.5 0 0 1 3.5 3.5V15',
    sun: 'M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4',
    moon: 'M20 14.2A8.3 8.3 0 0 1 9.8 4a8.3 8.3 0 1 0 10.2 10.2z',
    help: 'M9.2 9.3a2.9 2.9 0 1 1 4.3 2.5c-.9.5-1.5 1.1-1.5 2.2M12 17.4v.1M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z',
    filter: 'M4 7h10M18 7h2M4 17h2M10 17h10M16 4.8v4.4M8 14.8v4.4',
    close: 'M6 6l12 12M18 6L6 18',
    left: 'M14.5 5.5L8 12l6.5 6.5',
    right: 'M9.5 5.5L16 12l-6.5 6.5',
    copy: 'M9 9.5A1.5 1.5 0 0 1 10.5 8h7A1.5 1.5 0 0 1 19 9.5v8a1.5 1.5 0 0 1-1.5 1.5h-7A1.5 1.5 0 0 1 9 17.5zM15 8V6.5A1.5 1.5 0 0 0 13.5 5h-7A1.5 1.5 0 0 0 5 6.5v8A1.5 1.5 0 0 0 6.5 16H9',
    done: 'M5 12.5l4.5 4.5L19 7.5',
    out: 'M13 5h6v6M19 5l-8.5 8.5M10 6H6.5A1.5 1.5 0 0 0 5 7.5v10A1.5 1.5 0 0 0 6.5 19h10a1.5 1.5 0 0 0 1.5-1.5V14',
    failed: 'M12 4.2l8.6 15H3.4zM12 10v4M12 16.7v.1',
    waiting: 'M12 3.5a8.5 8.5 0 1 0 0 17 8.5 8.5 0 0 0 0-17zM12 7.5V12l3 2',
    picture:
      'M4 6.5A1.5 1.5 0 0 1 5.5 5h13A1.5 1.5 0 0 1 20 6.5v11a1.5 1.5 0 0 1-1.5 1.5h-13A1.5 1.5 0 0 1 4 17.5zM4.5 16.5l4.8-4.8 3.7 3.7 2.3-2.3 4.2 4.2M14.8 9.3v.1',
    video:
      'M4 7.5A1.5 1.5 0 0 1 5.5 6h9A1.5 1.5 0 0 1 16 7.5v9a1.5 1.5 0 0 1-1.5 1.5h-9A1.5 1.5 0 0 1 4 16.5zM16 10.5l4-2.5v8l-4-2.5',
  };
  const SVG = 'http://www.w3.org/2000/svg';

  function icon(name) {
    const made = document.createElementNS(SVG, 'svg');
    made.setAttribute('viewBox', '0 0 24 24');
    made.setAttribute('class', `icon icon-${name}`);
    made.setAttribute('aria-hidden', 'true');
    const path = document.createElementNS(SVG, 'path');
    path.setAttribute('d', PATHS[name]);
    made.append(path);
    return made;
  }

  /** A button that shows an icon; its name is for whoever does not see it, and what a pointer that rests is told. */
  function iconButton(tag, name, label, onclick) {
    return el(tag, { type: 'button', 'aria-label': label, title: label, onclick }, icon(name));
  }

  /** What the page says to those who do not see it change. */
  function tell(text) {
    document.getElementById('told').textContent = visible(text);
  }

  Object.assign(gallery, { el, icon, iconButton, tell, visible });
})();
