"""A loopback stand-in of S3 and of Blob Storage, to read from: enough for a plan."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

# The published key of every local Azurite: it opens nothing.
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
CHANGED = ("2026-01-01T00:00:00.000Z", "Thu, 01 Jan 2026 00:00:00 GMT")


class Storage(BaseHTTPRequestHandler):
    """Answers GET and HEAD of one bucket or container: what it holds, each file of one byte."""

    protocol_version = "HTTP/1.1"
    asked: list[str]
    held: list[str]

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        azure = "x-ms-version" in self.headers
        # Of Blob Storage the first part is the account, on loopback.
        parts, query = url.path.strip("/").split("/")[1 if azure else 0 :], parse_qs(url.query)
        self.asked.append(f"{self.command} {self.path}")
        name = unquote("/".join(parts[1:]))
        body = b"" if name else self._listed(query.get("prefix", [""])[0], azure)
        known = not name or name in self.held
        self.send_response(200 if known else 404)
        if not known:
            self.send_header("x-ms-error-code", "BlobNotFound")
        size = "1" if name in self.held else str(len(body))
        headers = {
            "Content-Type": "application/xml",
            "ETag": '"1"',
            "Last-Modified": CHANGED[1],
            "Content-Length": size,
        }
        for key, value in {**headers, "x-ms-blob-type": "BlockBlob", "x-ms-creation-time": CHANGED[1]}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b"x" if name in self.held else body)

    def _listed(self, prefix: str, azure: bool) -> bytes:
        names = [name for name in self.held if name.startswith(prefix)]
        if azure:
            of = f"<Last-Modified>{CHANGED[1]}</Last-Modified><Content-Length>1</Content-Length>"
            found = "".join(f"<Blob><Name>{name}</Name><Properties>{of}</Properties></Blob>" for name in names)
            return f'<?xml version="1.0"?><EnumerationResults><Blobs>{found}</Blobs><NextMarker/></EnumerationResults>'.encode()
        of = f"<LastModified>{CHANGED[0]}</LastModified><ETag>1</ETag><Size>1</Size>"
        found = "".join(f"<Contents><Key>{name}</Key>{of}</Contents>" for name in names)
        ended = f"<KeyCount>{len(names)}</KeyCount><IsTruncated>false</IsTruncated>"
        return f'<?xml version="1.0"?><ListBucketResult>{found}{ended}</ListBucketResult>'.encode()

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        """Tests print enough."""


@contextmanager
def storage(held: list[str]) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Variables that lead Snakemake's storage plugins to a bucket of these files, and what they ask for."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Storage,), {"asked": asked, "held": held}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    account = f"AccountName=account;AccountKey={AZURITE_KEY};BlobEndpoint={address}/account"
    yield (
        {
            "SNAKEMAKE_STORAGE_S3_ENDPOINT_URL": address,
            "SNAKEMAKE_STORAGE_S3_ACCESS_KEY": "loopback",
            "SNAKEMAKE_STORAGE_S3_SECRET_KEY": "loopback",
            "AZURITE_CONNECTION_STRING": f"DefaultEndpointsProtocol=http;{account};",
            "SNAKEMAKE_STORAGE_AZURE_ACCOUNT_NAME": "account",
        },
        asked,
    )
    server.shutdown()
    server.server_close()
