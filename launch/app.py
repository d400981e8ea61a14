"""A web page on which a run is tried: photos, interpolation, attributes, blocks of codes, new images.

python launch/app.py --workdir=pretrained/dbae_digits --prior=pretrained/prior_digits [--share] [--port=7860]

--workdir: a run, an exported folder, or hf://owner/name. Needs gradio, the extra [demo]. The page is for one person or
a few: there is one computation at a time.
"""

import argparse
import functools
import html
import logging
import os
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from diffrep_jax.errors import UserError  # noqa: E402
from launch import photos  # noqa: E402

FRAMES = 11
NEW = 8
SHOWN = 224  # pixels, at least: small images are enlarged by a whole factor
CSS = """
.pixels img { image-rendering: pixelated; max-height: 45vh; object-fit: contain; }
.pixels .grid-container { grid-template-columns: repeat(auto-fit, minmax(64px, 1fr)) !important; }
.all .grid-wrap { height: auto !important; max-height: none !important; }
.code { display: flex; align-items: center; height: 48px; width: 100%; }
.code i { flex: 1; background: #4a90d9; }
.stays { position: sticky; top: 0; z-index: 10; align-self: flex-start; background: var(--body-background-fill); }
.line { opacity: 0.75; min-height: 1.5em; }
"""


def enlarged(image: np.ndarray) -> np.ndarray:
    """[h, w, c] -> RGB, each pixel repeated."""
    factor = max(1, -(-SHOWN // image.shape[0]))
    return np.broadcast_to(image, (*image.shape[:2], 3)).repeat(factor, axis=0).repeat(factor, axis=1)


def bars(z: np.ndarray) -> str:
    """A code as bars, the largest as high as the strip."""
    heights = 100 * np.abs(z) / max(float(np.abs(z).max()), 1e-12)
    shifts = np.where(z > 0, -50, 50)
    bar = '<i style="height: {:.0f}%; transform: translateY({}%)" title="{}: {:.2f}"></i>'
    strips = [bar.format(h / 2, s, i, x) for i, (h, s, x) in enumerate(zip(heights, shifts, z, strict=True))]
    return f'<div class="code">{"".join(strips)}</div><small>z, {len(z)} numbers</small>'


class Page:
    """The page of a studio, in gradio's blocks `self.blocks`."""

    def __init__(self, gradio: Any, studio: Any):
        self.gr, self.studio = gradio, studio
        self._images: list[np.ndarray] = studio.examples()
        with gradio.Blocks(title="diffrep_jax", analytics_enabled=False) as self.blocks:
            gradio.Markdown(f"## {studio.title}")
            if studio.has_codes:
                self._inputs()
            self._steps()
            with gradio.Tabs():
                if studio.has_codes:
                    for name, build in (
                        ("Reconstruct", self._reconstruct),
                        ("Interpolate", self._interpolate),
                        ("Attributes", self._attributes),
                        ("Blocks", self._exchange),
                    ):
                        with gradio.Tab(name):
                            build()
                with gradio.Tab("New"):
                    self._sample()

    # What everything begins with

    def _inputs(self) -> None:
        gr = self.gr
        first, second = (self._images[i % len(self._images)] if self._images else None for i in (0, 1))
        self.first, self.second = gr.State(first), gr.State(second)
        with gr.Row():
            for name, state, image in (("first", self.first, first), ("second", self.second, second)):
                with gr.Column(min_width=140):
                    shown = self._picture(f"{name} image", image)
                    upload = gr.UploadButton(f"Upload the {name} image", file_types=["image"], size="sm")
                    said = gr.Markdown(elem_classes="line")
                    self._on(upload.upload, self._photo, [upload], [state, shown, said], f"upload_{name}")
                    if self._images:
                        gallery = [(enlarged(picture), str(i)) for i, picture in enumerate(self._images)]
                        with gr.Accordion("or pick one", open=False):
                            picked = gr.Gallery(
                                gallery,
                                columns=4,
                                height=220,
                                allow_preview=False,
                                format="png",
                                elem_classes="pixels",
                                label=name,
                            )
                        picked.select(self._picker(), None, [state, shown, said], api_name=False)

    def _photo(self, path: str | None) -> tuple[Any, Any, str]:
        if path is None:
            raise UserError("No file has arrived; upload it again.")
        model, learned = self.studio.model, str(self.studio.config.data.name)
        image, remarks = photos.read(path, model.image_size, model.channels, learned)
        return image, enlarged(image), " ".join(remarks)

    def _picker(self) -> Callable[..., Any]:
        def pick(event: Any) -> tuple[Any, Any, str]:
            image = self._images[int(event.index)]
            return image, enlarged(image), ""

        pick.__annotations__ = {"event": self.gr.SelectData}  # by which gradio hands it over
        return pick

    def _steps(self) -> None:
        gr, usual = self.gr, self.studio.usual
        with gr.Accordion("Steps", open=False):
            with gr.Row():
                self.decode = gr.Slider(1, max(100, usual.decode), usual.decode, step=1, label="steps of decoding")
                self.invert = gr.Slider(
                    0,
                    max(100, usual.invert),
                    usual.invert,
                    step=1,
                    label="steps up to the stochastic code (0: from the code alone)",
                    visible=self.studio.has_codes,
                )

    # The tabs

    def _reconstruct(self) -> None:
        gr = self.gr
        button = gr.Button("Encode and decode the first image", variant="primary")
        with gr.Row():
            start, back = self._picture("x_T, the start"), self._picture("back from the code")
        code, line = gr.HTML(), gr.Markdown(elem_classes="line")

        def run(image: Any, decode: int, invert: int) -> tuple[Any, ...]:
            answer = self.studio.reconstruct(given(image, "first"), self._chosen(decode, invert))
            return *map(enlarged, answer.pictures.values()), bars(answer.codes), answer.line

        self._on(button.click, run, [self.first, self.decode, self.invert], [start, back, code, line], "reconstruct")

    def _interpolate(self) -> None:
        gr = self.gr
        button = gr.Button("From the first image to the second", variant="primary")
        frames, shown = gr.State([]), self._picture("on the way")
        slider = gr.Slider(0, FRAMES - 1, 0, step=1, label="from the first to the second", interactive=True)
        line = gr.Markdown(elem_classes="line")

        def run(first: Any, second: Any, decode: int, invert: int, at: int) -> tuple[Any, ...]:
            steps = self._chosen(decode, invert)
            answer = self.studio.interpolate(given(first, "first"), given(second, "second"), FRAMES, steps)
            way = [enlarged(frame) for frame in answer.pictures.values()]
            return way, way[int(at)], answer.line

        def frame(way: list[Any], at: int) -> Any:
            return way[int(at)] if way else None

        inputs = [self.first, self.second, self.decode, self.invert, slider]
        self._on(button.click, run, inputs, [frames, shown, line], "interpolate")
        slider.input(frame, [frames, slider], shown, queue=False, show_progress="hidden", api_name=False)

    def _attributes(self) -> None:
        gr, names = self.gr, list(self.studio.heads)
        if not names:
            gr.Markdown(
                "There are no heads for these weights yet. Run `--task=probe` on a labelled data set, or start this "
                "page with `--fit_heads` (and `--data_dir` where the data need one)."
            )
            return
        reach = self.studio.reach
        with gr.Row():
            with gr.Column(min_width=240, elem_classes="stays"):
                shown = self._picture("first image, changed")
                said = gr.HTML()
                line = gr.Markdown(elem_classes="line")
            with gr.Column(min_width=240):
                sliders = [gr.Slider(-reach, reach, 0, step=reach / 20, label=name, interactive=True) for name in names]
                again = gr.Button("All back to 0")

        def run(image: Any, decode: int, invert: int, *scales: float) -> tuple[Any, ...]:
            wanted = dict(zip(names, map(float, scales), strict=True))
            answer = self.studio.manipulate(given(image, "first"), wanted, self._chosen(decode, invert))
            return enlarged(answer.pictures["changed"]), table(self.studio.read(answer.codes)), answer.line

        inputs, outputs = [self.first, self.decode, self.invert, *sliders], [shown, said, line]
        for slider in sliders:
            self._on(slider.release, run, inputs, outputs, "manipulate" if slider is sliders[0] else False)
        reset = again.click(lambda: [0.0] * len(sliders), None, sliders, queue=False, api_name=False)
        self._on(reset.then, run, inputs, outputs, False)

    def _exchange(self) -> None:
        gr = self.gr
        blocks = gr.CheckboxGroup(self.studio.blocks, label="dimensions of z that the two images exchange")
        button = gr.Button("Exchange", variant="primary")
        with gr.Row():
            one, other = self._picture("first, changed"), self._picture("second, changed")
        line = gr.Markdown(elem_classes="line")

        def run(first: Any, second: Any, chosen: list[str], decode: int, invert: int) -> tuple[Any, ...]:
            steps = self._chosen(decode, invert)
            answer = self.studio.exchange(given(first, "first"), given(second, "second"), chosen, steps)
            return *map(enlarged, answer.pictures.values()), answer.line

        inputs = [self.first, self.second, blocks, self.decode, self.invert]
        self._on(button.click, run, inputs, [one, other, line], "exchange")

    def _sample(self) -> None:
        gr = self.gr
        if not self.studio.makes_images:
            gr.Markdown(
                "New images need a prior of these codes: train one (`--config=configs/latent_prior_FILE.py`), then "
                "start this page with `--prior=FOLDER`."
            )
            return
        number = gr.Number(0, label="number of the first one; the same number gives the same image", precision=0)
        button = gr.Button(f"Make {NEW} images", variant="primary")
        gallery = gr.Gallery(
            columns=4, allow_preview=False, format="png", elem_classes=["pixels", "all"], label="new images"
        )
        line = gr.Markdown(elem_classes="line")

        def run(first: float, decode: int) -> tuple[Any, ...]:
            if not 0 <= (first or 0) <= 2**31 - 1 - NEW:
                raise UserError(f"The number {first:g} is out of range; take one from 0 on.")
            answer = self.studio.sample(NEW, int(first or 0), self._chosen(decode, 0))
            numbered = [(enlarged(image), name.split()[-1]) for name, image in answer.pictures.items()]
            return numbered, answer.line

        self._on(button.click, run, [number, self.decode], [gallery, line], "sample")

    # How

    def _picture(self, label: str, image: np.ndarray | None = None) -> Any:
        return self.gr.Image(
            None if image is None else enlarged(image),
            label=label,
            interactive=False,
            format="png",
            buttons=["download"],
            min_width=140,
            elem_classes="pixels",
        )

    def _chosen(self, decode: float, invert: float) -> Any:
        from launch.studio import Steps

        return Steps(int(decode), int(invert))

    def _on(self, event: Any, run: Callable[..., Any], inputs: list[Any], outputs: list[Any], name: str | bool) -> None:
        """Bind an event; a UserError becomes a message on the page, and there is one computation at a time."""

        @functools.wraps(run)
        def explained(*arguments: Any) -> Any:
            try:
                return run(*arguments)
            except UserError as error:
                raise self.gr.Error(str(error), duration=None, print_exception=False) from None

        event(explained, inputs, outputs, api_name=name, concurrency_id="model", concurrency_limit=1)


def given(image: np.ndarray | None, name: str) -> np.ndarray:
    if image is None:
        raise UserError(f"There is no {name} image yet: upload one.")
    return np.asarray(image, np.uint8)


def table(said: Mapping[str, float]) -> str:
    """What the heads say, as a small table."""
    rows = (f"<tr><td>{html.escape(name)}</td><td>{value:.2f}</td></tr>" for name, value in said.items())
    return f"<details><summary>what the heads read off this code</summary><table>{''.join(rows)}</table></details>"


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="launch/app.py", description="Try a run in a browser.")
    parser.add_argument("--workdir", required=True, help="a run, an exported folder, or hf://owner/name")
    parser.add_argument("--prior", help="the run of a prior of its codes, for new images")
    parser.add_argument("--data_dir", help="where the run's data are, for examples and --fit_heads")
    parser.add_argument("--fit_heads", action="store_true", help="run --task=probe first where there are no heads")
    parser.add_argument("--share", action="store_true", help="a public address through gradio's servers, for 72 hours")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: for other machines of the network, too")
    parser.add_argument("--port", type=int, default=None, help="default: the first free one from 7860 on")
    return parser.parse_args(argv)


def page(flags: argparse.Namespace) -> Page:
    """The page that the flags ask for; UserError where the run does not open or gradio is missing."""
    if flags.port is not None and not 0 < flags.port < 2**16:
        raise UserError(f"--port={flags.port} is no port; give one from 1 to {2**16 - 1}, such as 7860.")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # or it would tell its makers
    try:
        import gradio  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError("launch/app.py needs gradio: pip install 'diffrep_jax[demo]'") from None
    from launch.studio import Studio

    return Page(gradio, Studio(flags.workdir, flags.data_dir, flags.prior, flags.fit_heads))


def main(argv: list[str]) -> None:
    flags = parse(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    from launch import runtime

    runtime.set_up()
    opened = page(flags)
    opened.blocks.launch(
        server_name=flags.host,
        server_port=flags.port,
        share=flags.share,
        max_file_size=photos.MOST_BYTES,
        show_error=False,
        css=CSS,
    )


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
