'use strict';
// One prompt, large: its pictures and videos one at a time, all of them in a strip, and beside them what is known.
(() => {
  const gallery = window.mirrorGallery;
  const { el, icon, iconButton, format } = gallery;

  const SWIPE = 48;
  const NEAR = 80;
  const still = window.matchMedia('(prefers-reduced-motion: reduce)');

  /** What is looked at, in order: each file of each child, and a child without any as what became of it. */
  function itemsOf(detail) {
    const groups = detail.groups ?? [];
    const found = [];
    groups.forEach((group, number) => {
      for (const item of group.items ?? [])
        found.push({ group, file: detail.files[item.file], thumb: detail.files[item.thumb] ?? null });
      const isLacking = !group.items?.length && group.state !== 'done';
      if (isLacking && (groups.length === 1 || number > 0)) found.push({ group, file: null, thumb: null });
    });
    return found.length
      ? found
      : [{ group: groups[0] ?? { id: detail.id, state: detail.state }, file: null, thumb: null }];
  }

  const smallOf = (item) =>
    item.thumb?.small || item.file?.small || (item.thumb && item.thumb.kind !== 'video' ? item.thumb.src : '') || '';

  class Detail {
    /**
     * `onshow(card, item)` is called for what is shown, `onclose(card)` when it was closed; `beside(card, by)` is the
     * prompt next to one, or none; `place(card)` says which of how many it is.
     */
    constructor(dialog, { onshow, onclose, beside, place }) {
      this.dialog = dialog;
      this.onshow = onshow;
      this.beside = beside;
      this.place = place;
      this.card = null;
      this.at = 0;
      this.items = [];
      this.turn = 0;
      this.build();
      dialog.addEventListener('close', () => {
        this.turn += 1;
        this.silence();
        onclose(this.card);
      });
      dialog.addEventListener('keydown', (event) => this.pressed(event));
      dialog.addEventListener('click', (event) => event.target === dialog && dialog.close());
      this.swipes();
    }

    get isOpen() {
      return this.dialog.open;
    }

    build() {
      this.title = el('h2', { id: 'detail-title' });
      this.where = el('span.where');
      this.view = el('div.view');
      this.strip = el('div.strip', { role: 'group', 'aria-label': 'Pictures and videos of this prompt' });
      this.back = iconButton('button.turn.back', 'left', 'Previous', () => this.step(-1));
      this.on = iconButton('button.turn.on', 'right', 'Next', () => this.step(1));
      this.panel = el('div.panel', { tabindex: '0', role: 'region', 'aria-label': 'Facts' });
      this.dialog.append(
        el(
          'div.stage',
          {},
          el(
            'div.bar',
            {},
            iconButton('button.tool', 'close', 'Close', () => this.dialog.close()),
            this.title,
            this.where,
          ),
          this.view,
          this.back,
          this.on,
          this.strip,
        ),
        this.panel,
      );
    }

    /** Show a prompt; `item` is which of its pictures, -1 the last. */
    async open(card, item = 0) {
      this.card = card;
      const turn = (this.turn += 1);
      this.title.replaceChildren(gallery.visible(format.type(card.type)), gallery.cards.chip(card.state));
      if (!this.dialog.open) {
        this.clear();
        this.dialog.showModal();
      }
      try {
        const detail = await gallery.data.detail(card);
        if (turn !== this.turn) return;
        this.detail = detail;
        this.items = itemsOf(detail);
        this.from = this.to = 0;
        this.show(item < 0 ? this.items.length - 1 : Math.min(item, this.items.length - 1));
      } catch (error) {
        if (turn !== this.turn) return;
        this.clear();
        this.view.append(this.note('failed', error.message));
      }
    }

    clear() {
      this.silence();
      for (const part of [this.view, this.strip, this.panel]) part.replaceChildren();
      this.items = [];
    }

    /** The strip around one of the pictures: all of them, but of hundreds those near it. */
    fill(number) {
      const { detail } = this;
      const isLong = this.items.length > 4 * NEAR;
      this.from = isLong ? Math.max(0, number - NEAR) : 0;
      this.to = isLong ? Math.min(this.items.length, number + NEAR) : this.items.length;
      const isFamily = (detail.groups ?? []).length > 1;
      this.strip.replaceChildren();
      this.strip.hidden = this.items.length < 2;
      let last = null;
      let list = null;
      this.items.slice(this.from, this.to).forEach((item, at) => {
        if (item.group !== last) {
          last = item.group;
          list = el('div.thumbs');
          this.strip.append(el('section', {}, isFamily ? this.heading(item.group) : null, list));
        }
        list.append(this.thumb(item, this.from + at));
      });
    }

    heading(group) {
      const who = group === this.detail.groups[0] ? 'Prompt' : `Child ${group.id.slice(0, 8)}`;
      return el(
        'h3',
        { title: group.id },
        el('span', { text: who }),
        group.state === 'done' ? null : gallery.cards.chip(group.state),
      );
    }

    thumb(item, number) {
      const small = smallOf(item);
      const name = item.file?.path ?? format.state(item.group.state);
      const kind = item.file ? item.file.kind || 'picture' : (gallery.cards.STATE_ICONS[item.group.state] ?? 'picture');
      const inside = small ? gallery.cards.picture(small) : gallery.cards.blank(kind === 'image' ? 'picture' : kind);
      const made = el(
        'button.thumb',
        {
          type: 'button',
          'aria-label': `${number + 1} of ${this.items.length}: ${gallery.visible(name)}`,
          'data-state': item.file ? null : item.group.state,
          onclick: () => this.show(number),
        },
        inside,
      );
      if (item.file?.kind === 'video') made.append(el('span.mark', {}, icon('play')));
      // Many that look the same are told apart by their number.
      if (!small) made.append(el('span.number', { 'aria-hidden': 'true', text: number + 1 }));
      return made;
    }

    /** Show one of the pictures. */
    show(number) {
      const item = this.items[number];
      this.at = number;
      this.silence();
      this.view.replaceChildren(item.file ? this.media(item) : this.absent(item.group));
      this.where.textContent = this.items.length > 1 ? `${number + 1} / ${this.items.length}` : this.place(this.card);
      if (number < this.from || number >= this.to) this.fill(number);
      this.strip.querySelectorAll('.thumb').forEach((thumb, at) => {
        const isThis = this.from + at === number;
        thumb.setAttribute('aria-current', String(isThis));
        if (isThis) thumb.scrollIntoView({ block: 'nearest', inline: 'nearest' });
      });
      const scrolled = this.shown === this.detail ? this.panel.scrollTop : 0;
      this.shown = this.detail;
      this.panel.replaceChildren(...gallery.facts.panel(this.detail, [item.file, item.thumb]).filter(Boolean));
      this.panel.scrollTop = scrolled;
      this.onshow(this.card, number);
      this.turns();
    }

    /** Which ways there is something. What is disabled by this attribute keeps the focus. */
    turns() {
      if (!this.isOpen || !this.items.length) return;
      const isEnd = (by) => !this.items[this.at + by] && !this.beside(this.card, by);
      this.back.setAttribute('aria-disabled', String(isEnd(-1)));
      this.on.setAttribute('aria-disabled', String(isEnd(1)));
    }

    media(item) {
      const { file } = item;
      const name = gallery.visible(file.path);
      if (!file.src) return this.note('picture', 'This file is in no place that the page can reach.');
      if (file.kind === 'video') {
        const video = el('video.media', {
          controls: true,
          playsinline: true,
          loop: true,
          preload: 'metadata',
          poster: smallOf(item) || null,
          'aria-label': name,
          src: file.src,
        });
        video.addEventListener(
          'error',
          () => video.replaceWith(this.note('video', 'This browser cannot play the video.')),
          { once: true },
        );
        if (!still.matches) video.play().catch(() => {});
        return video;
      }
      const small = smallOf(item);
      const size = { width: file.width || null, height: file.height || null };
      const full = el('img.media', { alt: name, ...size, src: file.src });
      if (!small || full.complete) return this.guarded(full);
      // The preview is there at once; the picture takes its place when it is.
      const soft = el('img.media.soft', { alt: name, ...size, src: small });
      full.decode().then(
        () => soft.replaceWith(full),
        () =>
          soft.isConnected &&
          soft.after(el('p.cannot', { text: 'This is its preview: the browser cannot show the file.' })),
      );
      return soft;
    }

    guarded(image) {
      image.addEventListener(
        'error',
        () => image.replaceWith(this.note('picture', 'This browser cannot show the picture.')),
        { once: true },
      );
      return image;
    }

    absent(group) {
      return this.note(
        gallery.cards.STATE_ICONS[group.state] ?? 'picture',
        group.reason || format.meaning(group.state) || format.state(group.state),
      );
    }

    /** What stands in a picture's place. It may be long: then it scrolls, by the keyboard, too. */
    note(name, text) {
      const named = { tabindex: '0', role: 'group', 'aria-label': 'In place of a picture' };
      return el('div.note', named, icon(name), el('p', { text, dir: 'auto' }));
    }

    /** A video that is no longer shown is let go of. */
    silence() {
      const video = this.view.querySelector('video');
      if (!video) return;
      video.pause();
      video.removeAttribute('src');
      video.load();
      video.remove();
    }

    /** To the next picture, or the one before; behind a prompt's last comes the next prompt. */
    step(by) {
      const next = this.at + by;
      const beside = this.items[next] ? null : this.beside(this.card, by);
      if (this.items[next]) this.show(next);
      else if (beside) this.open(beside, by < 0 ? -1 : 0);
      else gallery.tell(by < 0 ? 'This is the first one' : 'This is the last one');
    }

    pressed(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest('video, input, textarea')) return;
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by) return;
      event.preventDefault();
      this.step(by);
    }

    swipes() {
      let from = null;
      this.view.addEventListener(
        'touchstart',
        (event) => {
          from = event.touches.length === 1 ? { x: event.touches[0].clientX, y: event.touches[0].clientY } : null;
        },
        { passive: true },
      );
      this.view.addEventListener(
        'touchend',
        (event) => {
          if (!from) return;
          const x = event.changedTouches[0].clientX - from.x;
          const y = event.changedTouches[0].clientY - from.y;
          from = null;
          if (Math.abs(x) > SWIPE && Math.abs(x) > 1.5 * Math.abs(y)) this.step(x < 0 ? 1 : -1);
        },
        { passive: true },
      );
    }
  }

  gallery.Detail = Detail;
})();
