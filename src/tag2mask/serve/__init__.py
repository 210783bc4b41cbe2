"""A server for annotation tools and browsers, around the segmenter of a run."""

from __future__ import annotations

import os
import socket
from importlib.util import find_spec
from pathlib import Path

from tag2mask.errors import RunError, UserError, reason
from tag2mask.logs import LOG

_NEEDS = {"fastapi": "fastapi", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}


def serve(run: str | Path, *, host: str = "127.0.0.1", port: int = 9090, label_studio: str | None = None) -> None:
    """Serve a run's segmenter until the process is stopped.

    Args:
        run: a run folder, or a segmenter exported from one.
        host: address to listen at; ``0.0.0.0`` for all of this machine's.
        port: to listen at.
        label_studio: address of the Label Studio server whose photos may be fetched. The environment variable
            LABEL_STUDIO_API_KEY is the token for it, else the one that Label Studio sends.

    Raises:
        UserError: what it needs is not installed, the run has no segmenter, or the port is taken.
    """
    missing = [name for module, name in _NEEDS.items() if find_spec(module) is None]
    if missing:
        raise UserError(f"serve needs {', '.join(missing)}: python -m pip install 'tag2mask[serve]'")
    import uvicorn

    from tag2mask.serve.app import LOOPBACK, make_app
    from tag2mask.serve.corrections import Corrections
    from tag2mask.serve.fetch import Photos
    from tag2mask.serve.model import LiveModel

    photos = Photos(label_studio, os.environ.get("LABEL_STUDIO_API_KEY"))
    model = LiveModel(run)
    corrections = Corrections(model.run, model.reload)
    app = make_app(model, corrections, photos, loopback=host in LOOPBACK)
    with _listening(host, port) as listener:
        corrections.take_up()
        LOG.info("serving %s; open http://%s:%d/ (Ctrl-C stops)", run, f"[{host}]" if ":" in host else host, port)
        if host not in LOOPBACK:
            LOG.warning(
                "anyone who can reach %s port %d can use this server, and change the run through its webhook",
                host,
                port,
            )
        options = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5)
        uvicorn.Server(options).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        raise RunError(f"cannot listen at {host} port {port} ({reason(error)}); choose another with --port") from None
