"""A static page of what was mirrored: no server, no outside request, and nothing that a manifest says is run.

``records`` says what is shown of a prompt, ``previews`` makes small pictures of the mirrored thumbnails, ``build`` puts
it all into a ``folder`` or a ``bucket``. ``templates`` and ``assets`` are what the browser gets as it stands.
"""
