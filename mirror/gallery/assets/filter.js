'use strict';
// Which cards are wanted, as a value; and that value as the part of the address behind `#`, so that it can be shared.
(() => {
  const gallery = window.mirrorGallery;

  const NONE = Object.freeze({ q: '', states: Object.freeze([]), kind: '', type: '', from: '', to: '', sort: '' });

  function read(hash) {
    const given = new URLSearchParams(hash.replace(/^#/, ''));
    const day = (name) => (/^\d{4}-\d{2}-\d{2}$/.test(given.get(name) ?? '') ? given.get(name) : '');
    const kind = given.get('kind');
    return {
      q: given.get('q') ?? '',
      states: (given.get('state') ?? '').split(',').filter(Boolean),
      kind: kind === 'picture' || kind === 'video' ? kind : '',
      type: given.get('type') ?? '',
      from: day('from'),
      to: day('to'),
      sort: given.get('sort') === 'oldest' ? 'oldest' : '',
    };
  }

  /** The address's part for a filter and, where one is open, a prompt and which of its pictures. */
  function write(filter, id = '', item = 0) {
    const told = new URLSearchParams();
    if (filter.q) told.set('q', filter.q);
    if (filter.states.length) told.set('state', filter.states.join(','));
    for (const name of ['kind', 'type', 'from', 'to', 'sort']) if (filter[name]) told.set(name, filter[name]);
    if (id) told.set('id', id);
    if (id && item) told.set('item', String(item + 1));
    const text = told.toString();
    return text ? `#${text}` : '#';
  }

  function opened(hash) {
    const given = new URLSearchParams(hash.replace(/^#/, ''));
    return { id: given.get('id') ?? '', item: Math.max(0, (parseInt(given.get('item') ?? '1', 10) || 1) - 1) };
  }

  const isSet = (filter) =>
    Boolean(filter.q || filter.states.length || filter.kind || filter.type || filter.from || filter.to);

  function searched(card) {
    card.searched ??= [
      card.id,
      ...(card.children ?? []),
      ...(card.names ?? []),
      card.text ?? '',
      card.reason ?? '',
      gallery.format.type(card.type),
    ]
      .join('\n')
      .toLowerCase();
    return card.searched;
  }

  /** A function that says of a card whether it is wanted. */
  function matcher(filter) {
    const words = filter.q.toLowerCase().split(/\s+/).filter(Boolean);
    const states = new Set(filter.states);
    const after = filter.to ? `${filter.to}T23:59:59Z` : '';
    return (card) => {
      if (states.size && !states.has(card.state)) return false;
      if (filter.kind === 'video' && !card.videos) return false;
      if (filter.kind === 'picture' && !card.pictures) return false;
      if (filter.type && String(card.type) !== filter.type) return false;
      if (filter.from && !(card.at && card.at >= filter.from)) return false;
      if (after && !(card.at && card.at <= after)) return false;
      return words.every((word) => searched(card).includes(word));
    };
  }

  gallery.filter = { NONE, read, write, opened, isSet, matcher };
})();
