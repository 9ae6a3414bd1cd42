'use strict';
// What is told of a prompt beside its pictures: why something failed, its files with their checksums, the task's facts.
(() => {
  const gallery = window.mirrorGallery;
  const { el, icon, format } = gallery;

  const MOST = 200;

  /** A link out of here, for http and https only; all else is text. */
  function address(url) {
    let scheme = '';
    try {
      scheme = new URL(url).protocol;
    } catch {
      // No URL at all.
    }
    if (scheme !== 'http:' && scheme !== 'https:') return el('span.mono', { text: url });
    return el('a.mono', { href: url, rel: 'noreferrer noopener', target: '_blank', text: url });
  }

  async function copied(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const field = el('textarea.unseen', { readonly: true, 'aria-hidden': 'true' });
      field.value = text;
      (document.querySelector('dialog[open]') ?? document.body).append(field);
      field.select();
      const done = document.execCommand('copy');
      field.remove();
      return done;
    }
  }

  function copyButton(text, what) {
    const button = gallery.iconButton('button.copy', 'copy', `Copy ${what}`, async () => {
      const done = await copied(text);
      button.replaceChildren(icon(done ? 'done' : 'failed'));
      gallery.tell(done ? `${what} copied` : `${what} could not be copied`);
      setTimeout(() => button.replaceChildren(icon('copy')), 1600);
    });
    return button;
  }

  function mono(text, what) {
    return el('span.copyable', {}, el('span.mono', { text }), copyButton(text, what));
  }

  /** Names and values; those without a value are left out. */
  function list(pairs) {
    const rows = pairs.filter(([, value]) => value !== null && value !== undefined && value !== '' && value !== false);
    return el(
      'dl.facts',
      {},
      rows.map(([name, value]) => el('div', {}, el('dt', { text: name }), el('dd', { dir: 'auto' }, value))),
    );
  }

  function section(title, ...content) {
    return el('section', {}, el('h3', { text: title }), ...content);
  }

  /** Of what there are thousands, the first are enough to look at. */
  function rest(all) {
    const more = all.length - MOST;
    return more > 0 ? el('p.muted', { text: `and ${format.number(more)} more: manifest.json has them all` }) : null;
  }

  /** What the service said of the prompt and its children in some of the states. */
  function saidOf(detail, isOne) {
    return (detail.groups ?? [])
      .filter((group) => group.reason && isOne(group.state))
      .map((group) => {
        const who = group === detail.groups[0] ? '' : ` · child ${format.brief(group.id)}`;
        return el(
          'li',
          {},
          el('strong', { text: `${format.state(group.state)}${who}` }),
          el('p', { text: group.reason, dir: 'auto' }),
        );
      });
  }

  const UNDER_WAY = ['queued', 'running'];

  /** Every reason, complete: what went wrong first. A reason that is given for what did not is no failure. */
  function reasons(detail) {
    return [
      reasonsOf('What went wrong', detail.state, wrongs(detail)),
      reasonsOf(
        'Still under way',
        'running',
        saidOf(detail, (state) => UNDER_WAY.includes(state)),
      ),
      reasonsOf(
        'What the service says',
        'done',
        saidOf(detail, (state) => state === 'done'),
      ),
    ];
  }

  function reasonsOf(title, state, told) {
    if (!told.length) return null;
    return section(title, el('ul.reasons', { 'data-state': state }, told.slice(0, MOST)), rest(told));
  }

  /** The service's own words, then what could not be fetched. */
  function wrongs(detail) {
    const told = saidOf(detail, (state) => state !== 'done' && !UNDER_WAY.includes(state));
    for (const wrong of detail.errors ?? []) {
      const more = [
        wrong.role,
        wrong.attempts ? format.counted(wrong.attempts, 'attempt') : '',
        wrong.was ? `it was ${wrong.was}` : '',
      ];
      told.push(
        el(
          'li',
          {},
          el('strong', { text: wrong.error }),
          el('p', { text: wrong.message, dir: 'auto' }),
          wrong.url && !wrong.message.includes(wrong.url) ? el('p', {}, address(wrong.url)) : null,
          more.some(Boolean) ? el('p.muted', { text: more.filter(Boolean).join(' · ') }) : null,
        ),
      );
    }
    return told;
  }

  function dimensions(file) {
    const told = file.width && file.height ? [`${file.width} × ${file.height}`] : [];
    if (file.seconds) told.push(format.duration(file.seconds));
    if (file.frame_rate) told.push(`${Number(file.frame_rate.toFixed(2))} frames a second`);
    if (file.codec) told.push(file.codec);
    return told.join(' · ');
  }

  function place(s3) {
    if (!s3) return null;
    return list([
      ['Object', mono(`s3://${s3.bucket}/${s3.key}`, 'S3 address')],
      ['ETag', el('span.mono', { text: s3.etag })],
      ['Version', s3.version_id ? el('span.mono', { text: s3.version_id }) : ''],
      [
        'Checksum',
        s3.checksum_sha256 || s3.checksum_crc64nvme
          ? el('span.mono', { text: s3.checksum_sha256 || s3.checksum_crc64nvme })
          : '',
      ],
      ['Came by', s3.via],
    ]);
  }

  function fileOf(file, isOpen) {
    const short = [
      file.role === 'origin' ? 'original' : file.role,
      format.size(file.bytes),
      file.width ? `${file.width} × ${file.height}` : '',
    ];
    const open = file.opens
      ? el('a.button.small', { href: file.src, target: '_blank', rel: 'noopener' }, 'Open', icon('out'))
      : null;
    return el(
      'details.file',
      { open: isOpen },
      el(
        'summary',
        {},
        el('span.name', { text: file.path, dir: 'auto' }),
        el('span.muted', { text: short.filter(Boolean).join(' · ') }),
      ),
      list(
        [
          ['SHA-256', file.sha256 ? mono(file.sha256, 'SHA-256') : 'none: the store copied it and gave none'],
          ['Size', `${format.number(file.bytes)} bytes`],
          ['Type', file.content_type],
          ['Media', dimensions(file)],
          ['Verified', (file.verified ?? []).join(', ')],
          ['Source', file.url ? address(file.url) : ''],
          ['ETag', file.etag ? el('span.mono', { text: file.etag }) : ''],
          ['Modified', format.moment(file.last_modified)],
          ['Named by', (file.named_by ?? []).map((each) => el('span.each.mono', { text: each }))],
        ].filter(([, value]) => !Array.isArray(value) || value.length),
      ),
      place(file.s3),
      open,
    );
  }

  /** All there is to tell; the files that are looked at come first, and the first of these is open. */
  function panel(detail, shown) {
    const root = detail.groups?.[0] ?? {};
    const first = [...new Set(shown.filter(Boolean))];
    const files = [...first, ...(detail.files ?? []).filter((file) => !first.includes(file))];
    return [
      ...reasons(detail),
      section(
        'Prompt',
        list([
          ['Id', mono(detail.id, 'Prompt id')],
          ['Task', root.task_id === undefined ? '' : String(root.task_id)],
          ['Type', root.type === undefined ? '' : format.type(root.type)],
          ['Made', detail.at && detail.at !== detail.mirrored_at ? format.moment(detail.at) : ''],
          ['Mirrored', format.moment(detail.mirrored_at)],
          ['Children', (detail.groups ?? []).length > 1 ? format.number(detail.groups.length - 1) : ''],
          ['Answered', detail.api],
          ...(detail.facts ?? []),
        ]),
      ),
      files.length
        ? section(
            format.counted(files.length, 'file'),
            el(
              'div.files',
              {},
              files.slice(0, MOST).map((file) => fileOf(file, file === shown[0])),
            ),
            rest(files),
          )
        : null,
      detail.manifest
        ? el(
            'p.end',
            {},
            el('a.button', { href: detail.manifest, target: '_blank', rel: 'noopener' }, 'manifest.json', icon('out')),
          )
        : null,
    ];
  }

  gallery.facts = { panel };
})();
