'use strict';
// Numbers, times and states as people read them. Times are UTC, as in the manifests.
(() => {
  const gallery = window.mirrorGallery;
  const number = new Intl.NumberFormat('en');
  const day = new Intl.DateTimeFormat('en', { day: 'numeric', month: 'short', year: 'numeric', timeZone: 'UTC' });
  const short = new Intl.DateTimeFormat('en', { day: 'numeric', month: 'short', timeZone: 'UTC' });
  const month = new Intl.DateTimeFormat('en', { month: 'long', year: 'numeric', timeZone: 'UTC' });
  const moment = new Intl.DateTimeFormat('en', {
    day: 'numeric',
    month: 'short',
    year: 'numeric',
    hour: '2-digit',
    minute: '2-digit',
    hourCycle: 'h23',
    timeZone: 'UTC',
  });

  const TYPES = { 3: 'Face swap', 4: 'Enhancement', 5: 'Filter', 6: 'Upscaled picture' };
  const STATES = {
    complete: 'Complete',
    partial: 'Partial',
    pending: 'Pending',
    failed: 'Failed',
    unknown: 'Unknown',
    unresolved: 'Unresolved',
    done: 'Done',
    queued: 'Queued',
    running: 'Running',
  };
  const MEANINGS = {
    complete: 'Everything is here',
    partial: 'A file is missing',
    pending: 'A task has not ended yet',
    failed: 'The service could not make it',
    unknown: 'The service does not know it',
    unresolved: 'The service could not be asked',
  };

  function size(bytes) {
    if (bytes < 1023.5) return `${bytes} B`;
    for (const unit of ['KiB', 'MiB', 'GiB', 'TiB']) {
      bytes /= 1024;
      if (bytes < 1023.95) return `${bytes.toFixed(1)} ${unit}`;
    }
    return `${(bytes / 1024).toFixed(1)} PiB`;
  }

  /** A length in time: `0:05`, `12:30`, `1:02:03`. */
  function duration(seconds) {
    const whole = Math.max(1, Math.round(seconds));
    const two = (part) => String(part).padStart(2, '0');
    const minutes = Math.floor(whole / 60) % 60;
    const hours = Math.floor(whole / 3600);
    return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
  }

  /** An id short enough for a card; its two ends are what people compare. */
  function brief(id) {
    return id.length > 18 ? `${id.slice(0, 8)}…${id.slice(-4)}` : id;
  }

  const counted = (count, noun) => `${number.format(count)} ${noun}${count === 1 ? '' : 's'}`;
  const dated = (format) => (text) => (text ? format.format(new Date(text)) : '');

  /** What is on a card, in words: `2 videos and 1 picture`. */
  function contents(card) {
    const told = [];
    if (card.videos) told.push(counted(card.videos, 'video'));
    if (card.pictures) told.push(counted(card.pictures, 'picture'));
    return told.join(' and ') || 'nothing to see';
  }

  gallery.format = {
    number: (count) => number.format(count),
    size,
    duration,
    brief,
    counted,
    contents,
    day: dated(day),
    short: dated(short),
    month: dated(month),
    moment: (text) => (text ? `${dated(moment)(text)} UTC` : ''),
    type: (type) => TYPES[type] ?? (type === undefined || type === null ? 'Prompt' : `Task type ${type}`),
    state: (state) => STATES[state] ?? state,
    meaning: (state) => MEANINGS[state] ?? '',
  };
})();
