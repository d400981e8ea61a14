"""The web page, by gradio's own client; skipped without gradio, which `make app` installs."""

import numpy as np
import pytest
from PIL import Image

from diffrep_jax.errors import UserError
from launch import app

gradio = pytest.importorskip("gradio")
gradio_client = pytest.importorskip("gradio_client")


@pytest.fixture(scope="module")
def client():
    flags = app.parse(["--workdir=pretrained/dbae_digits", "--prior=pretrained/prior_digits"])
    blocks = app.page(flags).blocks
    _, address, _ = blocks.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    yield gradio_client.Client(address, verbose=False)
    blocks.close()


def pixels(path):
    return np.asarray(Image.open(path).convert("L"))


def test_it_reconstructs_and_shows_what_it_took(client):
    x_T, back, code, line = client.predict(5, 0, api_name="/reconstruct")
    original = pixels("pretrained/dbae_digits/examples/00.png").astype(float)
    again = pixels(back)[::14, ::14].astype(float)
    assert pixels(back).shape == (224, 224) and pixels(x_T).shape == (224, 224)
    assert ((again - original) ** 2).mean() / 255**2 < 0.005
    assert code.count("<i ") == 64 and line.startswith("euler, 5 evaluations, ")


def test_every_tab_answers(client):
    frame, line = client.predict(2, 0, 10, api_name="/interpolate")
    assert "2 evaluations each, 11 images" in line and pixels(frame).shape == (224, 224)
    still, said, _ = client.predict(2, 0, *[0.0] * 14, api_name="/manipulate")
    moved, _, _ = client.predict(2, 0, 0, 0.1, *[0.0] * 12, api_name="/manipulate")
    assert "slant" in said and not np.array_equal(pixels(still), pixels(moved))
    one, other, _ = client.predict(["0-7", "8-15"], 2, 0, api_name="/exchange")
    assert not np.array_equal(pixels(one), pixels(other))
    gallery, _ = client.predict(0, 2, api_name="/sample")
    again, _ = client.predict(4, 2, api_name="/sample")
    assert len(gallery) == app.NEW
    np.testing.assert_array_equal(pixels(gallery[4]["image"]), pixels(again[0]["image"]))


def test_an_upload_is_used_and_a_bad_one_is_a_message(client, tmp_path):
    zeros = gradio_client.handle_file("pretrained/dbae_digits/examples/02.png")
    shown, said = client.predict(zeros, api_name="/upload_first")
    np.testing.assert_array_equal(pixels(shown)[::14, ::14], pixels("pretrained/dbae_digits/examples/02.png"))
    assert not said
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image at all")
    with pytest.raises(Exception, match="no image"):
        client.predict(gradio_client.handle_file(str(bad)), api_name="/upload_first")
    with pytest.raises(Exception, match="out of range"):
        client.predict(-1, 2, api_name="/sample")


def test_a_folder_that_is_no_run_is_one_line(tmp_path):
    with pytest.raises(UserError, match=str(tmp_path)):
        app.page(app.parse([f"--workdir={tmp_path}"]))


@pytest.mark.parametrize("port", [0, -1, 65536, 22222222])
def test_a_port_that_there_is_not_is_refused(port):
    with pytest.raises(UserError, match=f"--port={port} is no port"):
        app.page(app.parse(["--workdir=pretrained/dbae_digits", f"--port={port}"]))
