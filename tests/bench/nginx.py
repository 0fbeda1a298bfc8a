"""A plain nginx of the benchmark, as the upstream and as a subject: one worker, logs off, connections kept."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench.processes import SUBJECT_CORE, Running, running
from tests.support.nginx import find_nginx

_AROUND = """
{user}
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    server_tokens off;
    keepalive_requests 1000000000;
    keepalive_timeout 300s;
    client_max_body_size 0;
    sendfile on;
    tcp_nodelay on;
    default_type application/json;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
{servers}
}}
"""


@contextmanager
def running_nginx(
    folder: Path, servers: str, ready_url: str, cores: Sequence[int] = (SUBJECT_CORE,)
) -> Iterator[Running]:
    """
    Run it until the block ends.

    Args:
        folder: For its configuration, its output and what it puts aside.
        servers: What stands inside `http`.

    Raises:
        DidNotStart: It does not start with that.
    """
    user = "user root;" if os.geteuid() == 0 else ""  # another may not look into the folder
    configuration = folder / "nginx.conf"
    configuration.write_text(_AROUND.format(user=user, folder=folder, servers=servers), encoding="utf-8")
    command = [find_nginx(), "-p", str(folder), "-c", str(configuration)]
    with running(command, ready_url, folder / "nginx.log", cores=cores) as process:
        yield process
