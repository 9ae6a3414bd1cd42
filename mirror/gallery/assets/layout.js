'use strict';
// Where each card stands: rows as wide as the page, each picture in its own proportions. Only arithmetic.
(() => {
  const gallery = window.mirrorGallery;

  const CAPTION = 50;
  const HEAD = 54;

  function measures(width) {
    // `target` is how tall a picture would like to be, `least` how wide at least; pixels.
    if (width < 480) return { gap: 10, target: 150, least: 150, tallest: 300 };
    if (width < 900) return { gap: 14, target: 190, least: 150, tallest: 270 };
    return { gap: 16, target: width > 1800 ? 260 : 225, least: 160, tallest: width > 1800 ? 350 : 305 };
  }

  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  /** Width over height of a card's picture; what is very tall or very wide is cropped. */
  function ratio(card) {
    const tiles = card.tiles ?? [];
    if (!tiles.length) return 1.3;
    if (tiles.length > 1) return tiles.length === 2 ? 1.5 : 1.4;
    const { width, height } = tiles[0];
    return width && height ? clamp(width / height, 0.7, 1.9) : 1.4;
  }

  /**
   * Rows from top to bottom: `{top, height, title}` for the head of a month, else `{top, height, first, cells}` with a
   * cell `{left, width}` for each card from the one at `first`.
   */
  function rowsOf(cards, width) {
    const { gap, target, least, tallest } = measures(width);
    const rows = [];
    let top = 0;
    let month = null;
    let first = 0;
    let ratios = [];

    const close = (isFull) => {
      if (!ratios.length) return;
      const space = width - gap * (ratios.length - 1);
      const sum = ratios.reduce((one, other) => one + other, 0);
      const fitting = space / sum;
      const height = Math.round(isFull ? Math.min(fitting, tallest) : Math.min(fitting, target));
      let left = 0;
      const cells = ratios.map((each, at) => {
        const last = isFull && at === ratios.length - 1 && fitting <= tallest;
        const cell = { left: Math.round(left), width: Math.round(last ? width - left : each * height) };
        left += each * height + gap;
        return cell;
      });
      rows.push({ top, height: height + CAPTION, picture: height, first, cells });
      top += height + CAPTION + gap;
      first += ratios.length;
      ratios = [];
    };

    const most = Math.max(1, Math.floor((width + gap) / (least + gap)));
    for (const card of cards) {
      const now = (card.at ?? '').slice(0, 7);
      if (now !== month) {
        close(false);
        month = now;
        rows.push({ top, height: HEAD, title: card.at ? gallery.format.month(card.at) : 'Undated', first, cells: [] });
        top += HEAD;
      }
      ratios.push(ratio(card));
      const sum = ratios.reduce((one, other) => one + other, 0);
      if (ratios.length >= most || sum * target + gap * (ratios.length - 1) >= width) close(true);
    }
    close(false);
    return { rows, height: top };
  }

  /** The first row that ends below `y`. */
  function rowAt(rows, y) {
    let low = 0;
    let high = rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (rows[middle].top + rows[middle].height < y) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The row that holds the card at `index`. */
  function rowOf(rows, index) {
    let low = 0;
    let high = rows.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (rows[middle].first <= index) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  gallery.layout = { rowsOf, rowAt, rowOf };
})();
