'use strict';
// The grid. Only the rows near the window are in the document, however many there are; the one with the focus stays.
(() => {
  const gallery = window.mirrorGallery;
  const { el, layout } = gallery;

  const BEYOND = 700;
  const REST = 140;
  const SLIM = 150;
  const still = window.matchMedia('(prefers-reduced-motion: reduce)');
  const hovers = window.matchMedia('(hover: hover) and (pointer: fine)');

  class Grid {
    /** `onopen(index)` is called for a card that is opened, `onend()` when the last rows come near the window, `onlast()` for the key End. */
    constructor(root, { onopen, onend, onlast }) {
      this.root = root;
      this.onopen = onopen;
      this.onend = onend;
      this.onlast = onlast;
      this.cards = [];
      this.rows = [];
      this.made = new Map();
      this.active = 0;
      this.width = 0;
      this.playing = null;
      this.frame = 0;
      const later = () => (this.frame ||= requestAnimationFrame(() => this.draw()));
      window.addEventListener('scroll', later, { passive: true });
      new ResizeObserver(() => {
        if (this.root.clientWidth !== this.width) this.arrange(true);
      }).observe(root);
      root.addEventListener('click', (event) => this.clicked(event));
      root.addEventListener('keydown', (event) => this.pressed(event));
      root.addEventListener('focusin', (event) => this.focused(event));
      root.addEventListener('focusout', () => this.stop());
      root.addEventListener('pointerover', (event) => this.entered(event));
      root.addEventListener('pointerleave', () => this.stop());
    }

    /** Show these cards. More of them behind those that are there leaves everything else as it is. */
    show(cards, isMore = false) {
      const before = this.cards;
      this.cards = cards;
      if (!isMore) this.active = 0;
      this.arrange(isMore, before);
    }

    arrange(keep, before = this.cards) {
      const anchor = keep ? this.anchor() : null;
      const old = this.rows;
      this.width = this.root.clientWidth;
      const { rows, height } = layout.rowsOf(this.cards, this.width);
      this.rows = rows;
      for (const [at, row] of this.made) {
        if (keep && rows[at] && this.isSame(old[at], rows[at], before)) continue;
        if (row.contains(this.playing?.tile)) this.stop();
        row.remove();
        this.made.delete(at);
      }
      this.root.style.height = `${Math.max(0, height)}px`;
      if (anchor) this.restore(anchor);
      this.draw();
    }

    /** Whether a row is where it was, and holds what it held: then it is not made anew, and no picture flickers. */
    isSame(old, row, before) {
      const isThere = old && ['top', 'height', 'first', 'title'].every((name) => old[name] === row[name]);
      if (!isThere || old.cells.length !== row.cells.length) return false;
      return row.cells.every(
        (cell, at) => cell.width === old.cells[at].width && this.cards[row.first + at] === before[row.first + at],
      );
    }

    /** Which card is at the window's top, and where: a new arrangement leaves it there. */
    anchor() {
      const y = -this.root.getBoundingClientRect().top;
      const row = this.rows[layout.rowAt(this.rows, y)];
      const focus = document.activeElement?.closest?.('.card')?.dataset.index;
      return { index: row?.first, offset: row && y > 0 ? y - row.top : null, focus };
    }

    restore({ index, offset, focus }) {
      if (offset !== null && this.rows.length) {
        const row = this.rows[layout.rowOf(this.rows, index)];
        window.scrollBy(0, row.top + offset + this.root.getBoundingClientRect().top);
      }
      if (focus !== undefined) {
        this.draw();
        this.focus(Number(focus), false);
      }
    }

    draw() {
      this.frame = 0;
      const box = this.root.getBoundingClientRect();
      const first = layout.rowAt(this.rows, -box.top - BEYOND);
      const end = -box.top + window.innerHeight + BEYOND;
      const wanted = new Set();
      for (let at = first; at < this.rows.length && this.rows[at].top < end; at += 1) wanted.add(at);
      const focus = document.activeElement?.closest?.('.row');
      for (const [at, row] of this.made) {
        if (wanted.has(at) || row === focus) continue;
        row.remove();
        this.made.delete(at);
      }
      for (const at of wanted) if (!this.made.has(at)) this.add(at);
      this.rove(this.rows[layout.rowAt(this.rows, -box.top)]?.first);
      if (first + wanted.size >= this.rows.length) this.onend();
    }

    add(at) {
      const row = this.rows[at];
      const made = row.title ? el('h2.month', { text: row.title, 'aria-hidden': 'true' }) : this.cellsOf(row);
      made.style.top = `${row.top}px`;
      made.style.height = `${row.height}px`;
      // In the order of their places, for whoever reads on from one to the next.
      let next = null;
      for (const [other, element] of this.made)
        if (other > at && (next === null || other < next.at)) next = { at: other, element };
      this.root.insertBefore(made, next?.element ?? null);
      this.made.set(at, made);
    }

    cellsOf(row) {
      const made = el('div.row');
      row.cells.forEach((place, at) => {
        const index = row.first + at;
        const cell = gallery.cards.make(this.cards[index], index);
        if (place.width < SLIM) cell.classList.add('slim');
        cell.style.left = `${place.left}px`;
        cell.style.width = `${place.width}px`;
        cell.querySelector('.picture').style.height = `${row.picture}px`;
        made.append(cell);
      });
      return made;
    }

    // The keyboard ------------------------------------------------------------------------------

    /** One card is in the order of the Tab key: the one that was used last, or `first`, that is to be seen. */
    rove(first) {
      const one = this.link(this.active) ?? this.link(first);
      for (const link of this.root.querySelectorAll('.card[tabindex="0"]')) if (link !== one) link.tabIndex = -1;
      if (one) one.tabIndex = 0;
    }

    link(index) {
      return this.root.querySelector(`.card[data-index="${index}"]`);
    }

    pressed(event) {
      const link = event.target.closest('.card');
      if (!link || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === 'End') {
        event.preventDefault();
        this.onlast();
        return;
      }
      const next = this.neighbour(Number(link.dataset.index), event.key);
      if (next === null) return;
      event.preventDefault();
      this.focus(next);
    }

    neighbour(index, key) {
      const last = this.cards.length - 1;
      if (key === 'ArrowRight') return Math.min(index + 1, last);
      if (key === 'ArrowLeft') return Math.max(index - 1, 0);
      if (key === 'Home') return 0;
      if (key !== 'ArrowDown' && key !== 'ArrowUp') return null;
      const step = key === 'ArrowDown' ? 1 : -1;
      let at = layout.rowOf(this.rows, index);
      const here = this.rows[at].cells[index - this.rows[at].first];
      do at += step;
      while (this.rows[at]?.title);
      const row = this.rows[at];
      if (!row) return index;
      const middle = here.left + here.width / 2;
      const away = row.cells.map((cell) => Math.abs(cell.left + cell.width / 2 - middle));
      return row.first + away.indexOf(Math.min(...away));
    }

    /** Give a card the focus, and bring it into the window. */
    focus(index, scroll = true) {
      if (!this.cards.length) return;
      this.active = Math.min(index, this.cards.length - 1);
      const at = layout.rowOf(this.rows, this.active);
      if (!this.made.has(at)) this.add(at);
      if (scroll) this.reveal(this.rows[at]);
      this.rove();
      this.link(this.active)?.focus({ preventScroll: true });
      this.draw();
    }

    reveal(row) {
      const top = this.root.getBoundingClientRect().top + row.top;
      const above = document.querySelector('.bars').offsetHeight + 24;
      const below = window.innerHeight - 16;
      if (top < above) window.scrollBy(0, top - above);
      else if (top + row.height > below) window.scrollBy(0, top + row.height - below);
    }

    focused(event) {
      const link = event.target.closest('.card');
      if (!link) return;
      this.active = Number(link.dataset.index);
      this.rove();
      if (link.matches(':focus-visible')) this.play(link.querySelector('.tile[data-video]'));
    }

    clicked(event) {
      const link = event.target.closest('.card');
      if (!link || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      this.stop();
      this.onopen(Number(link.dataset.index));
    }

    // Videos, in place ----------------------------------------------------------------------------

    entered(event) {
      if (event.pointerType !== 'mouse' || !hovers.matches) return;
      const card = event.target.closest('.card');
      const tile = event.target.closest('.tile');
      if (!card) this.stop();
      else if (tile && tile !== this.playing?.tile) this.play(tile.dataset.video ? tile : null);
    }

    /** Play a tile's video over its picture, without sound, while the pointer or the focus is there. */
    play(tile) {
      this.stop();
      if (!tile || still.matches) return;
      const timer = setTimeout(() => {
        const video = el('video', {
          muted: true,
          loop: true,
          playsinline: true,
          preload: 'none',
          'aria-hidden': 'true',
          tabindex: '-1',
        });
        video.muted = true;
        video.src = tile.dataset.video;
        video.addEventListener('playing', () => video.classList.add('on'), { once: true });
        tile.append(video);
        this.playing.video = video;
        video.play().catch(() => {});
      }, REST);
      this.playing = { tile, timer, video: null };
    }

    stop() {
      const { timer, video } = this.playing ?? {};
      this.playing = null;
      clearTimeout(timer);
      if (!video) return;
      video.pause();
      video.removeAttribute('src');
      video.load();
      video.remove();
    }
  }

  gallery.Grid = Grid;
})();
