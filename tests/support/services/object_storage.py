"""A loopback stand-in of S3 and of Blob Storage, to read from: enough for a plan."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from urllib.parse import parse_qs, unquote, urlsplit

from support.services.openai_service import FaultyHandler, serving

# The published key of every local Azurite: it opens nothing.
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
CHANGED = ("2026-01-01T00:00:00.000Z", "Thu, 01 Jan 2026 00:00:00 GMT")
HEADERS = {"Content_Type": "application/xml", "ETag": '"1"', "Last_Modified": CHANGED[1]}
BLOB = {"x_ms_blob_type": "BlockBlob", "x_ms_creation_time": CHANGED[1]}


class Storage(FaultyHandler):
    """Answers GET and HEAD of one bucket or container: what it holds, each file of one byte."""

    asked: list[str]
    held: list[str]

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        azure = "x-ms-version" in self.headers
        # Of Blob Storage the first part is the account, on loopback.
        parts, query = url.path.strip("/").split("/")[1 if azure else 0 :], parse_qs(url.query)
        self.asked.append(f"{self.command} {self.path}")
        name = unquote("/".join(parts[1:]))
        if name and name not in self.held:
            return self.reply(404, b"", x_ms_error_code="BlobNotFound", **HEADERS)
        return self.reply(200, b"x" if name else self._listed(query.get("prefix", [""])[0], azure), **HEADERS, **BLOB)

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


@contextmanager
def storage(held: list[str]) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Variables that lead Snakemake's storage plugins to a bucket of these files, and what they ask for."""
    asked: list[str] = []
    with serving(SimpleNamespace(), type("Handler", (Storage,), {"asked": asked, "held": held})) as service:
        account = f"AccountName=account;AccountKey={AZURITE_KEY};BlobEndpoint={service.address}/account"
        environment = {
            "SNAKEMAKE_STORAGE_S3_ENDPOINT_URL": service.address,
            "SNAKEMAKE_STORAGE_S3_ACCESS_KEY": "loopback",
            "SNAKEMAKE_STORAGE_S3_SECRET_KEY": "loopback",
            "AZURITE_CONNECTION_STRING": f"DefaultEndpointsProtocol=http;{account};",
            "SNAKEMAKE_STORAGE_AZURE_ACCOUNT_NAME": "account",
        }
        yield environment, asked
