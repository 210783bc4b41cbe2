"""The photos of a task: from a data URI, or from the one Label Studio server that was named. Never from a path."""

from __future__ import annotations

import base64
import binascii
import json
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import SplitResult, urlsplit

from tag2mask.errors import DataError, UserError, reason

MOST_BYTES = 32 * 2**20
"""Larger photos, and larger requests, are refused."""

SECONDS = 30
"""How long Label Studio may take to send a photo."""

_FOLDERS = ("data/", "storage-data/", "tasks/")
"""Where Label Studio keeps photos, after its own address."""


class Photos:
    """Where the photos of tasks come from.

    Args:
        host: address of Label Studio; None for photos in data URIs only.
        token: of a user of Label Studio who may see the photos: an access token, or a personal one.

    Raises:
        UserError: the address is none.
    """

    def __init__(self, host: str | None = None, token: str | None = None) -> None:
        if host is not None and not _is_web(split(host)):
            raise UserError(f"--label-studio {host}: give its address, such as http://localhost:8080")
        self.host, self.token = host and host.rstrip("/") + "/", token
        self._opener = urllib.request.build_opener(_NoRedirect)

    def save(self, place: str, file: Path) -> None:
        """Write a task's photo to a file.

        Args:
            place: what the task says: a data URI, or a URL or path on Label Studio.
            file: where to.

        Raises:
            DataError: it is elsewhere, too large, or does not come.
        """
        file.write_bytes(_of_data_uri(place) if place.startswith("data:") else self._fetched(place))

    def _fetched(self, place: str) -> bytes:
        if self.host is None:
            raise DataError("the photo is not in the request; start the server with --label-studio ADDRESS")
        whole = _is_web(split(place))
        url, host = place if whole else self.host + place.lstrip("/"), split(self.host)
        parts = split(url)
        inside = parts.path.startswith(tuple(host.path + folder for folder in _FOLDERS)) and ".." not in parts.path
        if not _is_web(parts) or (parts.scheme, parts.netloc) != (host.scheme, host.netloc) or not inside:
            raise DataError(
                f"{place}: only photos that {self.host} keeps are fetched; upload the photo there, or add its folder "
                "as local storage"
            )
        return self._get(url, self._headers())

    def _headers(self) -> dict[str, str]:
        """Return how Label Studio knows us; a personal token (a JWT) is changed for one that lasts some minutes."""
        if not self.token:
            return {}
        if self.token.count(".") != 2:
            return {"Authorization": f"Token {self.token}"}
        body = json.dumps({"refresh": self.token}).encode()
        answer = self._get(f"{self.host}api/token/refresh", {"Content-Type": "application/json"}, body)
        try:
            return {"Authorization": f"Bearer {json.loads(answer)['access']}"}
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{self.host} refused the token; create a new one there") from None

    def _get(self, url: str, headers: dict[str, str], body: bytes | None = None) -> bytes:
        try:
            with self._opener.open(urllib.request.Request(url, body, headers), timeout=SECONDS) as answer:
                content: bytes = answer.read(MOST_BYTES + 1)
        except HTTPError as error:
            advice = "set LABEL_STUDIO_API_KEY" if error.code in (401, 403) else "check that the photo is there"
            raise DataError(f"{url}: Label Studio answered {error.code}; {advice}") from None
        except (OSError, HTTPException, ValueError) as error:
            raise DataError(f"{url}: cannot be fetched ({reason(error)}); check --label-studio") from None
        if len(content) > MOST_BYTES:
            raise DataError(f"{url}: more than {MOST_BYTES // 2**20} MB; make a smaller copy")
        return content


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it may lead to any host, and would take the token there."""

    def redirect_request(self, *_: Any) -> None:
        return None


def split(url: str) -> SplitResult:
    """Return the parts of a URL; no parts of what is none, such as ``http://[``."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _is_web(parts: SplitResult) -> bool:
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _of_data_uri(uri: str) -> bytes:
    head, _, content = uri.partition(",")
    try:
        if not head.endswith(";base64"):
            raise ValueError
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise DataError("the photo's data URI is not of the form data:image/jpeg;base64,...; send it so") from None
