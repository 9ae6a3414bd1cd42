"""An origin that is not the bottleneck: nginx in a process of its own, over HTTP and TLS, with Range and strong ETags.

What stands below ``www`` is served; ``tasks/<promptId>.json`` is the service's answer about a prompt. The same files
stand below further prefixes: ``far/`` (30 ms to the first byte, 80 MiB/s a connection, as an object store has it),
``late/`` (a second to the first byte), ``busy/`` (0.2 s), ``counted/`` (64 MiB/s a connection; the bytes sent are
written down), ``md5/`` (the ETag is the MD5 that ``tags`` names, with the header of an S3 answer).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.s3.tls import certificate

INSTALL = "apt install nginx-light libnginx-mod-http-echo"
_SBIN = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin")
_MODULE = "ngx_http_echo_module.so"

_CONFIG = """\
{module}
daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid {folder}/pid; error_log {folder}/error.log;
{user}
events {{ worker_connections 8000; multi_accept on; }}
http {{
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on;
  keepalive_requests 10000000; keepalive_timeout 600; open_file_cache max=20000;
  default_type application/octet-stream;
  types {{ image/png png; video/mp4 mp4; application/json json; text/html html; }}
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  log_format sent '$body_bytes_sent';
  map $uri $md5 {{ default ''; {tags} }}
  server {{
    listen 127.0.0.1:{http} backlog=4096; listen 127.0.0.1:{https} ssl backlog=4096;
    ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_session_cache shared:S:1m;
    root {folder}/www; autoindex on;
    location = /getTaskInfo {{ try_files /tasks/$arg_promptId.json /tasks/none.json; }}
    location /counted/ {{ alias {folder}/www/; access_log {folder}/sent.log sent; limit_rate 64m; }}
    location /md5/ {{ alias {folder}/www/; etag off; add_header ETag '"$md5"'; add_header x-amz-request-id 1; }}
    {slow}
  }}
}}
"""
_SLOW = """\
location /far/ {{ echo_sleep 0.03; echo_exec /slow/$uri; }}
    location ~ ^/slow//far/(.*)$ {{ internal; alias {folder}/www/$1; limit_rate 80m; }}
    location /late/ {{ echo_sleep 1; echo_exec /slow/$uri; }}
    location ~ ^/slow//late/(.*)$ {{ internal; alias {folder}/www/$1; }}
    location /busy/ {{ echo_sleep 0.2; echo_exec /slow/$uri; }}
    location ~ ^/slow//busy/(.*)$ {{ internal; alias {folder}/www/$1; }}"""


@dataclass(frozen=True)
class Origin:
    """An origin under way. ``http`` and ``https`` are its addresses, without a slash at the end."""

    http: str
    https: str
    ca_file: Path
    www: Path
    can_be_slow: bool

    def sent(self) -> int:
        """The bytes of bodies that were sent below ``counted/``, of requests that have ended."""
        log = self.www.parent / "sent.log"
        return sum(map(int, log.read_text("ascii").split())) if log.exists() else 0


def found() -> str | None:
    """Where nginx is, if it is installed."""
    return shutil.which("nginx") or shutil.which("nginx", path=os.pathsep.join(_SBIN))


def version() -> str:
    """What nginx calls itself."""
    return _told("-v").removeprefix("nginx version: ").strip()


@contextlib.contextmanager
def origin(folder: Path, tags: Mapping[str, str] | None = None) -> Iterator[Origin]:
    """Serve ``folder/www`` until the block is left. ``tags``: path below ``/md5/`` → MD5 in hex.

    Raises:
        SystemExit: nginx is not installed, or did not start.
    """
    program = found()
    if program is None:
        raise SystemExit(f"nginx is not installed: {INSTALL}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "www" / "tasks").mkdir(parents=True, exist_ok=True)
    (folder / "www" / "tasks" / "none.json").write_text('{"code": 900, "msg": "NO_DATA"}', "ascii")
    cert, (http, https), echo = certificate(folder / "tls"), _free_ports(2), _echo()
    config = _CONFIG.format(
        module=f"load_module {echo};" if echo else "",
        user="user root;" if os.geteuid() == 0 else "",
        slow=_SLOW.format(folder=folder) if echo else "",
        tags=" ".join(f"/md5/{path} {md5};" for path, md5 in (tags or {}).items()),
        certificate=cert.cert_file,
        key=cert.key_file,
        folder=folder,
        http=http,
        https=https,
    )
    (folder / "nginx.conf").write_text(config, "ascii")
    process = subprocess.Popen(
        [program, "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL
    )
    try:
        _await(process, https, folder / "error.log")
        yield Origin(
            f"http://127.0.0.1:{http}", f"https://localhost:{https}", cert.ca_file, folder / "www", echo is not None
        )
    finally:
        process.terminate()
        process.wait(10)


def _told(flag: str) -> str:
    return subprocess.run([found() or "nginx", flag], capture_output=True, text=True, check=True).stderr


def _echo() -> Path | None:
    """The module that answers late."""
    places = [*re.findall(r"--modules-path=(\S+)", _told("-V")), "/usr/lib/nginx/modules", "/usr/share/nginx/modules"]
    return next((path for place in places if (path := Path(place) / _MODULE).exists()), None)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in taken]


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.02)
    raise SystemExit(f"nginx did not start:\n{log.read_text() if log.exists() else ''}")
