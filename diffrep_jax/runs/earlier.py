"""What earlier versions wrote into `config.json`, brought to today's form."""

from typing import Any

SAMPLING = ("sampler", "grid", "steps", "churn_step_ratio", "eta", "seed")
PRIOR = ("prior_sampler", "prior_grid", "prior_steps", "prior_eta")
DECODING = ("reconstruct", "interpolate", "sample", "counterfactual", "manipulate", "evaluate")
MEASURES = ("lpips", "fid")
WITHOUT_CODES = ("ddpm", "latent_prior")


def upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """The config with one section `sampling`, where each task had its own, and `without` for the measures left out.

    The run's recipe is that of its reconstructions, or of its samples where it has no codes; a prior's is in its own
    run.
    """
    if "sampling" in content:
        return content
    tasks = content["tasks"]
    main = "sample" if content["method"].get("name") in WITHOUT_CODES else "reconstruct"
    recipe = {name: tasks[main][name] for name in SAMPLING if name in tasks.get(main, {})}
    kept = {name: _without(values, SAMPLING + PRIOR) if name in DECODING else values for name, values in tasks.items()}
    if "evaluate" in kept:
        without = [name for name in MEASURES if kept["evaluate"].get(name) is False]
        kept["evaluate"] = _without(kept["evaluate"], MEASURES) | {"without": without}
    return content | {"sampling": recipe, "tasks": kept}


def _without(section: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in section.items() if name not in names}
