"""The papers' numbers are right, and a run's numbers stand next to them with the differences in protocol."""

import numpy as np
import pytest

from diffrep_jax.report import compare, published
from diffrep_jax.report.collect import collect
from diffrep_jax.report.markdown import markdown
from diffrep_jax.report.measured import AS_PUBLISHED, INFERRED, THIS, WAYS, measured
from tests import made_run
from tests.report_parts import blocks, report_of


@pytest.fixture(scope="module")
def ffhq(tmp_path_factory):
    return made_run.ffhq_run(tmp_path_factory.mktemp("runs") / "ffhq")


def comparisons(folder):
    run = collect(folder)
    return {t.title: compare.comparison(t, run, measured(run)) for t in compare.fitting(run)}


def protocol(comparison, measure, which=THIS):
    return next(p for p in comparison["protocols"]["items"] if (p["measure"], p["which"]) == (measure, which))


def test_the_published_protocol_is_recognised(ffhq):
    compared = comparisons(ffhq)
    probes = protocol(compared["Linear probes of models of FFHQ 128 x 128"], "AP on CelebA")
    assert probes["same"] and probes["differences"] == []
    assert probes["value"] == pytest.approx(
        np.nanmean(list(made_run.celeba_probe()["attributes"]["each"]["ap"].values()))
    )
    faces = compared["Reconstruction of CelebA-HQ by models of FFHQ 128 x 128"]
    assert protocol(faces, "MSE")["same"]
    assert protocol(faces, "MSE")["settings"]["evaluations"] == 100  # of eight rows the one with the paper's settings
    assert protocol(faces, "SSIM")["differences"] == [
        "window of the SSIM: along height and width here, along width and channels in the paper"
    ]
    assert protocol(faces, "SSIM", AS_PUBLISHED)["same"]
    assert protocol(faces, "LPIPS")["differences"] == [
        "steps: 100 here, 333 in the paper",
        "churn: 0 here, 0.33 in the paper",
    ]
    rows = {row[0]: row[1:] for row in faces["table"]["rows"]}
    last = made_run.evaluation()["rows"][3]
    assert rows[THIS] == [512, last["ssim"], last["lpips"], last["mse"]]
    assert rows[AS_PUBLISHED] == [None, last["ssim_official"], None, None]
    marked = [faces["table"]["rows"][i][0] for i in faces["table"]["marked"]]
    assert marked == ["DBAE-d (deterministic encoder)", *WAYS]


def test_an_inferred_endpoint_is_a_row_of_its_own_and_files_are_nobodys(ffhq):
    """What was decoded from more than its code is no result of the code; images from files may be anyone's."""
    faces = comparisons(ffhq)["Reconstruction of CelebA-HQ by models of FFHQ 128 x 128"]
    rows = {row[0]: row[1:] for row in faces["table"]["rows"]}
    assert rows[INFERRED] == [49_664, 0.98, 0.01, 1e-4]  # as large as the papers' codes with an inferred x_T
    assert protocol(faces, "MSE", INFERRED)["differences"] == [
        "x_T: inferred here, from the code alone in the paper",
        "sampler: exponential here, euler in the paper",
    ]
    assert min(row["value"] for row in faces["protocols"]["items"]) > 1e-9
    samples = comparisons(ffhq)["Samples of models of FFHQ 128 x 128, T = 100"]
    assert (protocol(samples, "FID")["value"], protocol(samples, "FID")["same"]) == (12.5, True)


def test_each_difference_is_named(tmp_path, ffhq):
    run = made_run.celeba_run(tmp_path / "run", "encoder=stochastic")
    compared = comparisons(run)["Linear probes of models of CelebA 64 x 64"]
    assert protocol(compared, "r on LFW")["differences"] == [
        "split that picks the epoch: validation here, test in the paper",
        "training images: 256,000 here, 261,000,000 for the paper's own models",
    ]
    official = protocol(compared, "r on LFW", AS_PUBLISHED)
    assert official["value"] == pytest.approx(protocol(compared, "r on LFW")["value"] + 0.001)
    assert len(official["differences"]) == 1
    assert [column.name for column in compared["missing"]] == ["AP on CelebA"]
    assert compared["table"]["rows"][compared["table"]["marked"][0]][0] == "DBAE (stochastic encoder)"

    other = made_run.probed("celebahq", "attributes", {"ap": np.full(40, 0.5)}, [str(i) for i in range(40)], epochs=3)
    made_run.write(run / "probe" / "metrics.json", other | {"images": {"test": 300}})
    differences = protocol(comparisons(run)["Linear probes of models of CelebA 64 x 64"], "AP on CelebA")["differences"]
    assert differences[:3] == [
        "epochs of the linear head: 3 here, 15 in the paper",
        "data set: celebahq here, celeba in the paper",
        "images: 300 here, 19,962 in the paper",
    ]


def test_a_setting_that_was_not_recorded_is_a_difference(tmp_path):
    run = made_run.begin(tmp_path / "run", made_run.dbae_ffhq.get_config(), 1_020_000)
    made_run.write(run / "reconstruct" / "metrics.json", {"mse": 0.1} | made_run.DECODED)
    faces = comparisons(run)["Reconstruction of CelebA-HQ by models of FFHQ 128 x 128"]
    assert protocol(faces, "MSE")["differences"] == [
        "data set: not recorded here, celebahq in the paper",
        "images: not recorded here, 30,000 in the paper",
    ]


def test_digits_have_no_published_numbers(tmp_path):
    run = made_run.digits_run(tmp_path / "run")
    text = markdown(report_of(run), run, run)
    assert "There are no published numbers for models of digits at 16 x 16." in text
    assert compare.fitting(collect(run)) == []
    assert text.count("DBAE-d") == 3  # the papers' tables are at the end


def test_probes_of_several_data_sets_stand_next_to_the_papers_together(tmp_path):
    run = made_run.celeba_run(tmp_path / "run")
    for name, report in (("celeba", made_run.celeba_probe()), ("lfw", made_run.lfw_probe())):
        made_run.write(run / "probe" / "metrics.json", report)
        made_run.write(run / "probe" / f"metrics_{name}.json", report)
    compared = comparisons(run)["Linear probes of models of CelebA 64 x 64"]
    rows = {row[0]: row[1:] for row in compared["table"]["rows"]}
    ap, r = made_run.celeba_probe()["attributes_ap"], made_run.lfw_probe()["attributes_r"]
    assert rows[THIS][:2] == pytest.approx([ap, r]) and not compared["missing"]
    assert len(blocks(report_of(run), "bars")) == 3
    assert [tile["note"] for tile in report_of(run)["tiles"]][:2] == ["probe of celeba", "probe of lfw"]


def test_the_remarks_say_what_the_papers_do_in_another_way(ffhq):
    """FIDs, shuffling, mirrored images, targets and the stochastic encoder."""
    compared = comparisons(ffhq)
    said = {title: " ".join(one["protocols"]["remarks"]) for title, one in compared.items()}
    probes = said["Linear probes of models of FFHQ 128 x 128"]
    for part in ("in the data set's order", "mirrored at random", "in their own units", "sampling.encode=sample"):
        assert part in probes
    assert "sampling.encode=sample" in said["Reconstruction of CelebA-HQ by models of FFHQ 128 x 128"]
    assert "first 50,000 training images" in said["Samples of models of FFHQ 128 x 128, T = 100"]
    (disentangled,) = [table for table in published.tables() if "Disentanglement" in table.title]
    assert "clean-fid" in " ".join(disentangled.columns[1].remarks)
    assert disentangled.columns[1].settings == {"images": 10_000}
