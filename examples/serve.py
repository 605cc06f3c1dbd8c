"""Serve an exported network over HTTP: an image in, the probabilities of its classes out.

It needs onnxruntime, numpy and Pillow; neither torch nor ofbnas.

    python examples/serve.py digits.onnx --port 8000
    curl --data-binary @image.png http://127.0.0.1:8000
"""

from __future__ import annotations

import argparse
import io
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, UnidentifiedImageError

MOST_BYTES = 10_000_000  # of an image
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class Network:
    """An exported network, with what its file says of its images."""

    def __init__(self, file: str) -> None:
        self.session = onnxruntime.InferenceSession(file)
        texts = self.session.get_modelmeta().custom_metadata_map
        self.images = json.loads(texts["preprocessing"])

    def classify(self, image: Image.Image) -> dict[str, float]:
        """The probability of each class."""
        (logits,) = self.session.run(None, {"images": self.prepared(image)})
        exponents = np.exp(logits[0] - logits[0].max())
        names = self.images["class_names"] or [str(number) for number in range(len(exponents))]
        return dict(zip(names, (exponents / exponents.sum()).tolist(), strict=True))

    def prepared(self, image: Image.Image) -> Any:
        """The image resized, cropped at its centre and normalised, [1, channels, height, width]."""
        channels, height, width = self.images["input_size"]
        image = image.convert("L" if channels == 1 else "RGB")
        # The shorter side becomes a little longer than what the crop keeps.
        scale = max(height / image.height, width / image.width) / self.images["crop_pct"]
        size = (round(image.width * scale), round(image.height * scale))
        image = image.resize(size, FILTERS.get(self.images["interpolation"], FILTERS["bilinear"]))
        left = (image.width - width) // 2
        top = (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
        pixels = np.asarray(image, dtype=np.float32).reshape(height, width, channels) / 255
        normalised = (pixels - self.images["mean"]) / self.images["std"]
        return normalised.transpose(2, 0, 1)[None].astype(np.float32)


class Handler(BaseHTTPRequestHandler):
    """Answers a POST of an image's bytes with JSON."""

    network: Network

    def do_POST(self) -> None:  # http.server's name
        """Classify the image in the body."""
        length = int(self.headers.get("Content-Length", 0))
        if not 0 < length <= MOST_BYTES:
            self.answer(413, {"error": f"expected an image of 1 to {MOST_BYTES:,} bytes"})
            return
        try:
            image = Image.open(io.BytesIO(self.rfile.read(length)))
            self.answer(200, self.network.classify(image))
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError) as error:
            self.answer(400, {"error": f"expected an image: {error}"})

    def answer(self, code: int, content: dict[str, Any]) -> None:
        """Send JSON."""
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="an .onnx file of `ofbnas arch export`")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    Handler.network = Network(arguments.file)
    ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
