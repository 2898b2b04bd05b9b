"""Writes PDFs object by object, so that tests can make what no well-behaved library would."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field


@dataclass
class PdfWriter:
    """Collects objects and pages; `bytes()` gives the file.

    `broken` entries, odd filters and lies about sizes are the caller's: nothing is checked.
    """

    objects: list[bytes] = field(default_factory=lambda: [b"", b""])  # 1: catalog, 2: page tree
    pages: list[int] = field(default_factory=list)
    info: int | None = None

    def add(self, body: bytes) -> int:
        """Adds an object and returns its number."""
        self.objects.append(body)
        return len(self.objects)

    def stream(self, entries: str, data: bytes) -> int:
        """Adds a stream object; `entries` are its dictionary's entries without /Length."""
        head = f"<< {entries} /Length {len(data)} >>".encode()
        return self.add(head + b"\nstream\n" + data + b"\nendstream")

    def image(
        self,
        width: int,
        height: int,
        data: bytes,
        *,
        filters: str = "/FlateDecode",
        colorspace: str = "/DeviceRGB",
        bits: int = 8,
        more: str = "",
    ) -> int:
        """Adds an image XObject. With the default filter, `data` are raw samples and are compressed here."""
        if filters == "/FlateDecode":
            data = zlib.compress(data)
        space = f"/ColorSpace {colorspace} " if colorspace else ""
        return self.stream(
            f"/Type /XObject /Subtype /Image /Width {width} /Height {height} {space}"
            f"/BitsPerComponent {bits} /Filter {filters} {more}",
            data,
        )

    def jpeg(
        self, width: int, height: int, data: bytes, *, colorspace: str = "/DeviceRGB", more: str = ""
    ) -> int:
        """Adds a JPEG as an image XObject."""
        return self.image(width, height, data, filters="/DCTDecode", colorspace=colorspace, more=more)

    def form(self, content: str, resources: str, *, matrix: str = "1 0 0 1 0 0") -> int:
        """Adds a form XObject."""
        return self.stream(
            f"/Type /XObject /Subtype /Form /BBox [-5000 -5000 5000 5000] /Matrix [{matrix}] "
            f"/Resources << {resources} >>",
            content.encode("latin-1"),
        )

    def page(
        self,
        content: str | bytes,
        xobjects: dict[str, int] | None = None,
        *,
        size: tuple[int, int] = (600, 800),
        more: str = "",
    ) -> None:
        """Adds a page that can draw `xobjects` by name and write with the font /F (Helvetica)."""
        raw = content if isinstance(content, bytes) else content.encode("latin-1")
        stream = self.stream("", raw)
        names = " ".join(f"/{name} {number} 0 R" for name, number in (xobjects or {}).items())
        self.pages.append(
            self.add(
                f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {size[0]} {size[1]}] /Contents {stream} 0 R {more} "
                f"/Resources << /XObject << {names} >> /Font << /F << /Type /Font /Subtype /Type1 "
                "/BaseFont /Helvetica >> >> >> >>".encode()
            )
        )

    def title(self, text: str) -> None:
        """Sets the document's title."""
        self.info = self.add(f"<< /Title ({text}) >>".encode("latin-1"))

    def bytes(self, trailer: str = "") -> bytes:
        """The finished file."""
        self.objects[0] = b"<< /Type /Catalog /Pages 2 0 R >>"
        kids = " ".join(f"{number} 0 R" for number in self.pages)
        self.objects[1] = f"<< /Type /Pages /Kids [{kids}] /Count {len(self.pages)} >>".encode()
        out = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
        offsets = []
        for number, body in enumerate(self.objects, 1):
            offsets.append(len(out))
            out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
        start = len(out)
        out += f"xref\n0 {len(self.objects) + 1}\n0000000000 65535 f \n".encode()
        out += b"".join(f"{offset:010d} 00000 n \n".encode() for offset in offsets)
        info = f"/Info {self.info} 0 R" if self.info else ""
        out += f"trailer\n<< /Size {len(self.objects) + 1} /Root 1 0 R {info} {trailer} >>\n".encode()
        out += f"startxref\n{start}\n%%EOF\n".encode()
        return bytes(out)


def draw(name: str, left: float, bottom: float, width: float, height: float) -> str:
    """Page content that draws an XObject upright."""
    return f"q {width} 0 0 {height} {left} {bottom} cm /{name} Do Q\n"


def text(left: float, baseline: float, line: str, size: float = 10) -> str:
    """Page content that writes one line."""
    return f"BT /F {size} Tf {left} {baseline} Td ({line}) Tj ET\n"
