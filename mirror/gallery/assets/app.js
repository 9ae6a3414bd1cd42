'use strict';
// The page as a whole: what is read when, what the toolbar does, which keys there are, and what stands in the address.
(() => {
  const gallery = window.mirrorGallery;
  const { el, icon, iconButton, format, filter: filters } = gallery;
  const by = (id) => document.getElementById(id);

  const KEYS = [
    ['/', 'Search'],
    ['← ↑ ↓ →', 'From one prompt to the next'],
    ['Enter', 'Open'],
    ['← →', 'Previous and next, when one is open'],
    ['Home  End', 'First and last'],
    ['Esc', 'Close'],
    ['t', 'Dark or light'],
    ['?', 'This help'],
  ];

  // So many prompts before the last one that was read, the next ones are.
  const AHEAD = 40;

  let counts = null;
  let cards = [];
  let shown = [];
  let read = 0;
  let reading = null;
  let failure = '';
  let filter = filters.read(location.hash);
  let pushed = false;
  // What the address names and is to be opened, once it is read: `{id, item}`; and the id that was not to be found.
  let sought = filters.opened(location.hash);
  let missing = '';
  let toLast = false;

  const grid = new gallery.Grid(by('grid'), { onopen: (index) => open(index), onend: () => more(), onlast });
  const detail = new gallery.Detail(by('detail'), {
    onshow: (card, item) => address(card.id, item),
    onclose: (card) => closed(card),
    beside,
    place,
  });

  // Data ------------------------------------------------------------------------------------------

  const isWhole = () => counts !== null && read >= counts.pages;
  const wantsAll = () => filters.isSet(filter) || filter.sort === 'oldest' || Boolean(sought.id) || toLast;

  /** Read the next page of cards, and on to the end where something needs all of them. */
  function more() {
    if (reading || isWhole() || failure || counts === null) return;
    reading = gallery.data.cards(read + 1).then(
      (found) => {
        reading = null;
        read += 1;
        cards = cards.concat(found);
        apply(true);
        seek();
        if (toLast && isWhole()) onlast();
        else if (wantsAll()) more();
      },
      (error) => {
        reading = null;
        failure = error.message;
        toLast = false;
        tally();
      },
    );
  }

  /** To the last card of all, which may have to be read first. */
  function onlast() {
    toLast = !isWhole() && !failure;
    if (toLast) more();
    else grid.focus(Math.max(0, shown.length - 1));
  }

  function apply(isMore) {
    const wanted = filters.isSet(filter) ? cards.filter(filters.matcher(filter)) : cards;
    shown = filter.sort === 'oldest' ? wanted.toReversed() : wanted;
    grid.show(shown, isMore);
    detail.turns();
    tally();
  }

  function tally() {
    const all = format.counted(counts.prompts, 'prompt');
    const isSet = filters.isSet(filter);
    let told = isSet ? `${format.number(shown.length)} of ${all}` : all;
    if (isSet && !isWhole()) told += ' so far';
    if (missing) told += ` · none has the id ${gallery.visible(missing)}`;
    by('count').textContent = failure || told;
    by('clear').hidden = !isSet;
    const isEmpty = shown.length === 0 && (isWhole() || Boolean(failure));
    by('empty').hidden = !isEmpty;
    by('reset').hidden = !isSet;
    by('why').textContent = counts.prompts
      ? 'No prompt fits the search and the filters.'
      : 'No prompt has been mirrored yet.';
  }

  // The address -----------------------------------------------------------------------------------

  function address(id = '', item = 0) {
    history.replaceState(history.state, '', filters.write(filter, id, item));
  }

  function open(index) {
    history.pushState(null, '', filters.write(filter, shown[index].id));
    pushed = true;
    toLast = false;
    detail.open(shown[index]);
  }

  function beside(card, step) {
    const index = shown.indexOf(card) + step;
    if (index + AHEAD > shown.length) more();
    return shown[index];
  }

  function place(card) {
    const total = filters.isSet(filter) ? shown.length : counts.prompts;
    return `${format.number(shown.indexOf(card) + 1)} of ${format.number(total)}`;
  }

  function closed(card) {
    sought = { id: '' };
    if (filters.opened(location.hash).id) {
      if (pushed) history.back();
      else address();
    }
    pushed = false;
    grid.focus(Math.max(0, shown.indexOf(card)));
  }

  /**
   * Open what the address names, once it is read: the prompt of that id, else one that has such a child. The filter
   * gives way to it.
   */
  function seek() {
    const { id, item } = sought;
    if (!id) return;
    const isIt = (each) => each.id === id;
    const hasIt = (each) => (each.children ?? []).includes(id);
    let card = cards.find(isIt);
    if (!card && !isWhole()) return;
    sought = { id: '' };
    card ??= shown.find(hasIt) ?? cards.find(hasIt);
    if (!card) {
      missing = id;
      address(...(detail.isOpen ? [detail.card.id, detail.at] : []));
      tally();
      return;
    }
    if (!shown.includes(card)) {
      filter = { ...filters.NONE, sort: filter.sort };
      fillIn();
      apply(false);
      gallery.tell('The filters were cleared: what the address names did not fit them.');
    }
    detail.open(card, item);
  }

  function followAddress() {
    const asked = filters.read(location.hash);
    const named = filters.opened(location.hash);
    missing = '';
    if (JSON.stringify(asked) !== JSON.stringify(filter)) {
      filter = asked;
      fillIn();
      apply(false);
      more();
    }
    const isShown = detail.isOpen && detail.card.id === named.id && detail.at === named.item;
    sought = isShown ? { id: '' } : named;
    if (!isShown) pushed = false;
    if (!named.id && detail.isOpen) by('detail').close();
    tally();
    seek();
    if (sought.id) more();
  }

  // The toolbar -------------------------------------------------------------------------------------

  function change(values) {
    filter = { ...filter, ...values };
    missing = '';
    sought = { id: '' };
    toLast = false;
    address();
    window.scrollTo(0, 0);
    fillIn();
    apply(false);
    more();
  }

  /** What the controls show is what the filter says. */
  function fillIn() {
    if (by('q').value !== filter.q) by('q').value = filter.q;
    for (const name of ['from', 'to', 'type', 'sort'])
      if (by(name).value !== filter[name]) by(name).value = filter[name];
    for (const button of by('states').children) {
      const { state } = button.dataset;
      button.setAttribute('aria-pressed', String(state ? filter.states.includes(state) : filter.states.length === 0));
    }
    for (const button of by('kinds').children)
      button.setAttribute('aria-pressed', String(button.dataset.kind === filter.kind));
    const active = filter.states.length + ['kind', 'type', 'from', 'to'].filter((name) => filter[name]).length;
    by('more').dataset.active = active || '';
  }

  function stateButton(state, count) {
    const toggle = () => {
      const states = filter.states.includes(state)
        ? filter.states.filter((each) => each !== state)
        : [...filter.states, state];
      change({ states: state ? states : [] });
    };
    return el(
      'button.chip',
      { type: 'button', 'data-state': state, onclick: toggle, title: format.meaning(state) || null },
      state ? el('span.dot') : null,
      state ? format.state(state) : 'All',
      el('span.number', { text: format.number(count) }),
    );
  }

  function kindButton(kind, text) {
    return el('button', { type: 'button', 'data-kind': kind, onclick: () => change({ kind }) }, text);
  }

  function toolbar() {
    const order = ['complete', 'partial', 'pending', 'failed', 'unresolved', 'unknown'];
    const present = order.filter((state) => counts.states[state]);
    by('states').append(
      stateButton('', counts.prompts),
      ...present.map((state) => stateButton(state, counts.states[state])),
    );
    by('kinds').append(kindButton('', 'Everything'), kindButton('picture', 'Pictures'), kindButton('video', 'Videos'));
    const types = Object.keys(counts.types).sort((one, other) => one - other);
    by('type').append(
      el('option', { value: '' }, 'All tasks'),
      ...types.map((type) => el('option', { value: type }, format.type(type))),
    );
    by('types').hidden = types.length < 2;
    const written = by('facts').dataset.written;
    by('facts').append(
      `${format.counted(counts.files, 'file')} · ${format.size(counts.bytes)}`,
      el('time.written', { datetime: written, title: format.moment(written) }, ` · as of ${format.day(written)}`),
    );

    let typing = 0;
    by('q').addEventListener('input', () => {
      clearTimeout(typing);
      typing = setTimeout(() => change({ q: by('q').value.trim() }), 90);
    });
    by('q').addEventListener('keydown', (event) => {
      if (event.key === 'ArrowDown' || event.key === 'Enter') {
        event.preventDefault();
        grid.focus(0);
      }
    });
    for (const name of ['from', 'to', 'type', 'sort'])
      by(name).addEventListener('change', () => change({ [name]: by(name).value }));
    const reset = () => {
      change({ ...filters.NONE, sort: filter.sort });
      by('q').focus();
    };
    by('clear').addEventListener('click', reset);
    by('reset').addEventListener('click', reset);
    by('more').append(icon('filter'));
    by('more').addEventListener('click', () => {
      const isOpen = document.body.classList.toggle('filtering');
      by('more').setAttribute('aria-expanded', String(isOpen));
    });
  }

  // The theme, the keys -------------------------------------------------------------------------------

  const dark = window.matchMedia('(prefers-color-scheme: dark)');
  const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? 'dark' : 'light')) === 'dark';

  function showTheme() {
    const button = by('theme');
    button.replaceChildren(icon(isDark() ? 'sun' : 'moon'));
    button.setAttribute('aria-pressed', String(isDark()));
    button.title = isDark() ? 'Light theme' : 'Dark theme';
  }

  function turnTheme() {
    gallery.chooseTheme(isDark() ? 'light' : 'dark');
    showTheme();
  }

  function help() {
    const dialog = by('keys');
    const rows = KEYS.map(([key, what]) =>
      el(
        'div',
        {},
        el(
          'dt',
          {},
          key.split('  ').map((each) => el('kbd', {}, each)),
        ),
        el('dd', { text: what }),
      ),
    );
    dialog.append(
      el(
        'div.bar',
        {},
        el('h2', { id: 'keys-title', text: 'Keys' }),
        iconButton('button.tool', 'close', 'Close', () => dialog.close()),
      ),
      el('dl', {}, rows),
      el('p.muted', {
        text: 'Dates are in UTC. The address holds the filter and what is open. Videos play under the pointer or the focus.',
      }),
    );
    dialog.addEventListener('click', (event) => event.target === dialog && dialog.close());
    by('help').append(icon('help'));
    by('help').addEventListener('click', () => dialog.showModal());
  }

  function pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest('input, select, textarea')) return;
    const isOpen = document.querySelector('dialog[open]');
    if (event.key === '/' && !isOpen) {
      event.preventDefault();
      by('q').focus();
      by('q').select();
    } else if (event.key === '?' && !isOpen) by('keys').showModal();
    else if (event.key === 't') turnTheme();
  }

  async function start() {
    by('theme').addEventListener('click', turnTheme);
    dark.addEventListener('change', showTheme);
    showTheme();
    help();
    document.addEventListener('keydown', pressed);
    // Not as a link: what stands behind `#` is the filter.
    document.querySelector('.skip').addEventListener('click', (event) => {
      event.preventDefault();
      if (shown.length) grid.focus(grid.active);
      else by('grid').focus();
    });
    try {
      counts = await gallery.data.start();
    } catch (error) {
      by('count').textContent = error.message;
      return;
    }
    toolbar();
    fillIn();
    window.addEventListener('popstate', followAddress);
    apply(false);
    more();
    seek();
  }

  start();
})();
