'use strict';
// Elements are made here and nowhere else, and text goes in as text: nothing in this page turns a string into markup.
(() => {
  const gallery = window.mirrorGallery;

  // What moves, hides or turns text around is spelled out, so that a name reads as what it is.
  const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

  function visible(text) {
    return String(text).replace(UNSEEN, (found) => `\\u${found.charCodeAt(0).toString(16).padStart(4, '0')}`);
  }

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
      else made.setAttribute(key, value === true ? '' : value);
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
    play: 'M8 5.6v12.8c0 .8.9 1.3 1.6.8l9.5-6.4c.6-.4.6-1.2 0-1.6L9.600 4.800C8.900 4.300 8 4.800 8 5.600z',
    stack: 'M4 8.500A2.500 2.500 0 0 1 6.500 6h8A2.500 2.500 0 0 1 17 8.500v8a2.500 2.500 0 0 1-2.500 2.500h-8A2.500 2.500 0 0 1 4 16.500zM8 3h9a3.500 3.500 0 0 1 3.500 3.500V15',
    sun: 'M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2.500v2M12 19.500v2M2.500 12h2M19.500 12h2M5.300 5.300l1.400 1.400M17.300 17.300l1.400 1.400M5.300 18.700l1.400-1.400M17.300 6.700l1.400-1.400',
    moon: 'M20 14.200A8.300 8.300 0 0 1 9.800 4a8.300 8.300 0 1 0 10.200 10.200z',
    help: 'M9.200 9.300a2.900 2.900 0 1 1 4.300 2.500c-.9.500-1.500 1.100-1.500 2.200M12 17.400v.1M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z',
    filter: 'M4 7h10M18 7h2M4 17h2M10 17h10M16 4.800v4.400M8 14.800v4.400',
    close: 'M6 6l12 12M18 6L6 18',
    left: 'M14.500 5.500L8 12l6.500 6.500',
    right: 'M9.500 5.500L16 12l-6.500 6.500',
    copy: 'M9 9.500A1.500 1.500 0 0 1 10.500 8h7A1.500 1.500 0 0 1 19 9.500v8a1.500 1.500 0 0 1-1.500 1.500h-7A1.500 1.500 0 0 1 9 17.500zM15 8V6.500A1.500 1.500 0 0 0 13.500 5h-7A1.500 1.500 0 0 0 5 6.500v8A1.500 1.500 0 0 0 6.500 16H9',
    done: 'M5 12.500l4.500 4.500L19 7.500',
    out: 'M13 5h6v6M19 5l-8.500 8.500M10 6H6.500A1.500 1.500 0 0 0 5 7.500v10A1.500 1.500 0 0 0 6.500 19h10a1.500 1.500 0 0 0 1.500-1.500V14',
    failed: 'M12 4.200l8.600 15H3.400zM12 10v4M12 16.700v.1',
    waiting: 'M12 3.500a8.500 8.500 0 1 0 0 17 8.500 8.500 0 0 0 0-17zM12 7.500V12l3 2',
    picture: 'M4 6.500A1.500 1.500 0 0 1 5.500 5h13A1.500 1.500 0 0 1 20 6.500v11a1.500 1.500 0 0 1-1.500 1.500h-13A1.500 1.500 0 0 1 4 17.500zM4.500 16.500l4.800-4.800 3.700 3.700 2.300-2.300 4.200 4.200M14.800 9.300v.1',
    video: 'M4 7.500A1.500 1.500 0 0 1 5.500 6h9A1.500 1.500 0 0 1 16 7.500v9a1.500 1.500 0 0 1-1.500 1.500h-9A1.500 1.500 0 0 1 4 16.500zM16 10.500l4-2.500v8l-4-2.500',
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
