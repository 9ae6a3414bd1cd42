'use strict';
// The data files. A page from disk may fetch nothing, but it may load scripts: each calls `page` with its records.
(() => {
  const gallery = window.mirrorGallery;
  const generation = document.body.dataset.generation;
  const waiting = new Map();
  const details = new Map();
  const KEPT = 12;

  // Where the browser knows Trusted Types, this is the only thing that may name a script, and it makes the name itself.
  const policy = window.trustedTypes?.createPolicy('mirror-gallery', { createScriptURL: (url) => url });

  function address(kind, number) {
    const url = `${generation}/${kind}-${String(number).padStart(5, '0')}.js`;
    return policy ? policy.createScriptURL(url) : url;
  }

  /** Called by the data files. */
  gallery.page = (kind, number, text) => {
    waiting.get(`${kind} ${number}`)?.(JSON.parse(text));
  };

  /** The records of a data file. Fails where the file is gone: the gallery was written anew meanwhile. */
  function load(kind, number) {
    return new Promise((resolve, reject) => {
      const key = `${kind} ${number}`;
      const script = document.createElement('script');
      const end = () => {
        waiting.delete(key);
        script.remove();
      };
      waiting.set(key, (records) => {
        end();
        resolve(records);
      });
      script.addEventListener('error', () => {
        end();
        reject(new Error('This part of the gallery is gone: it was written anew, or moved. Load the page again.'));
      });
      script.addEventListener('load', () => {
        end();
        reject(new Error('This part of the gallery is damaged: write it anew with mirror gallery.'));
      });
      script.src = address(kind, number);
      document.head.append(script);
    });
  }

  /** A prompt's details; the last few files that were read are kept. */
  function detail(card) {
    const page = card.page;
    if (!page) return Promise.resolve(bare(card));
    let found = details.get(page);
    details.delete(page);
    found ??= load('detail', page);
    details.set(page, found);
    found.catch(() => details.delete(page));
    if (details.size > KEPT) details.delete(details.keys().next().value);
    return found.then((records) => records[card.row ?? 0]);
  }

  /** Of a prompt that has no manifest there is no more to tell than its card does. */
  function bare(card) {
    const group = { id: card.id, state: card.state, type: card.type, reason: card.reason };
    return { id: card.id, state: card.state, at: card.at, groups: [group] };
  }

  gallery.data = {
    start: () => load('start', 0).then(([counts]) => counts),
    cards: (number) => load('cards', number),
    detail,
  };
})();
