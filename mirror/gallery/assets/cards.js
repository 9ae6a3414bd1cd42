'use strict';
// One prompt in the grid: its pictures, what state it is in, and what it is called.
(() => {
  const gallery = window.mirrorGallery;
  const { el, icon, format } = gallery;

  const STATE_ICONS = {
    failed: 'failed',
    partial: 'failed',
    pending: 'waiting',
    queued: 'waiting',
    running: 'waiting',
    unknown: 'failed',
    unresolved: 'waiting',
  };

  /** A state, in colour and in words. */
  function chip(state) {
    return el('span.chip', { 'data-state': state }, el('span.dot'), format.state(state));
  }

  /** What a card's name says beside what is to be read on it: a link is called by its text. */
  function more(card) {
    return [format.state(card.state).toLowerCase(), format.contents(card), format.month(card.at)]
      .filter(Boolean)
      .join(', ');
  }

  function tile(each) {
    if (each.state)
      return el(
        'div.tile.none',
        { 'data-state': each.state },
        icon(STATE_ICONS[each.state] ?? 'waiting'),
        format.state(each.state),
      );
    const made = el('div.tile', { 'data-video': each.video || null });
    if (each.src) made.append(picture(each.src));
    else made.append(blank(each.video ? 'video' : 'picture'));
    return made;
  }

  /** A picture that gives way to a placeholder where the browser cannot read it. */
  function picture(src) {
    const made = el('img', { src, alt: '', loading: 'lazy', decoding: 'async', draggable: 'false' });
    made.addEventListener('error', () => made.replaceWith(blank('picture')), { once: true });
    return made;
  }

  function blank(kind) {
    return el('div.blank', {}, icon(kind));
  }

  /** A prompt without pictures says why in their place. */
  function notice(card) {
    const why = card.reason || format.meaning(card.state);
    return el('div.notice', { 'data-state': card.state }, el('p', { text: why, dir: 'auto' }));
  }

  /** What is said in the card's name already. */
  function hidden(element) {
    element.setAttribute('aria-hidden', 'true');
    return element;
  }

  function pictures(card) {
    const tiles = card.tiles ?? [];
    if (!tiles.length) return el('div.picture', {}, notice(card), hidden(chip(card.state)));
    const made = el(`div.picture.mosaic-${tiles.length}`, {}, tiles.map(tile));
    if (tiles.length > 1)
      for (const each of made.querySelectorAll('[data-video]')) each.append(el('span.mark', {}, icon('play')));
    const videos = tiles.filter((each) => each.video);
    const more = (card.items ?? tiles.length) - tiles.length;
    if (more > 0)
      made.lastElementChild.append(el('span.beyond', { 'aria-hidden': 'true', text: `+${format.number(more)}` }));
    if (card.state !== 'complete') made.append(hidden(chip(card.state)));
    if (tiles.length > 1)
      made.append(el('span.badge.count', { 'aria-hidden': 'true' }, icon('stack'), format.number(card.items)));
    else if (videos.length)
      made.append(
        el(
          'span.badge',
          { 'aria-hidden': 'true' },
          icon('play'),
          videos[0].seconds ? format.duration(videos[0].seconds) : 'Video',
        ),
      );
    return made;
  }

  function caption(card) {
    const failed = card.failures && card.reason && (card.tiles ?? []).length;
    return el(
      'div.caption',
      {},
      el('span.title', { text: format.type(card.type) }),
      el('span.unseen', { text: more(card) }),
      el('span.day', { text: format.short(card.at), title: format.moment(card.at) }),
      failed
        ? el('span.reason', { text: card.reason, title: card.reason, dir: 'auto' })
        : el('span.id', { text: format.brief(card.id), title: card.id }),
    );
  }

  /** A card for a place in the grid. How many there are in all is not known before all are read: `-1` says so. */
  function make(card, index) {
    const link = el(
      'a.card',
      { href: gallery.filter.write(gallery.filter.NONE, card.id), tabindex: '-1', 'data-index': index },
      caption(card),
      pictures(card),
    );
    return el('div.cell', { role: 'listitem', 'aria-posinset': index + 1, 'aria-setsize': '-1' }, link);
  }

  gallery.cards = { make, chip, picture, blank, STATE_ICONS };
})();
