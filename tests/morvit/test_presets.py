import pytest

from morvit.presets import NETWORKS, SETTINGS, architecture_of, recipe_of
from morvit.training import Training

ROUTES = {"capacities", "budgets", "uniform_share", "warm_epochs", "warm_from", "losses"}


@pytest.mark.parametrize("task", SETTINGS)
def test_what_is_compared_is_as_deep_and_a_third_as_large(task):
    vit, routed = (architecture_of(task, name) for name in ("vit", "morvit"))
    assert routed.effective_depth == vit.effective_depth == 12
    assert routed.unique_layers == 3
    assert routed.parameters <= 0.32 * vit.parameters


@pytest.mark.parametrize("task", SETTINGS)
def test_only_where_tokens_go_differs_between_the_recipes_of_a_task(task):
    recipes = [dict(recipe_of(task, name)) for name in NETWORKS if name != "distilled"]
    for field in recipes[0].keys() - ROUTES:
        assert len({str(recipe[field]) for recipe in recipes}) == 1, field


@pytest.mark.parametrize("task", SETTINGS)
def test_the_random_control_spends_as_much_as_the_router(task):
    routed, chance = (recipe_of(task, name) for name in ("morvit", "random"))
    assert routed == chance


@pytest.mark.parametrize("task", SETTINGS)
def test_the_distilled_network_is_the_routed_one_with_a_teacher(task):
    plain, taught = (dict(recipe_of(task, name)) for name in ("morvit", "distilled"))
    assert taught.pop("distillation") > plain.pop("distillation") == 0
    assert plain == taught


@pytest.mark.parametrize("network", ["vit", "morvit"])
@pytest.mark.parametrize("task", SETTINGS)
def test_positions_begin_as_far_apart_as_the_recipe_says(task, network):
    recipe = recipe_of(task, network)
    model = Training(architecture_of(task, network), recipe, seed=0).model
    # Cut at two, which takes an eighth off a deviation of one.
    assert 0.85 < float(model.positions.detach().std()) / recipe.token_deviation < 1.05


def test_only_cls_and_positions_begin_otherwise_with_another_deviation():
    architecture, recipe = (of("fashion-mnist", "morvit") for of in (architecture_of, recipe_of))
    near, far = (
        Training(architecture, recipe.model_copy(update={"token_deviation": each}), seed=0).model
        for each in (0.02, 0.5)
    )
    differing = {
        name
        for (name, one), other in zip(near.named_parameters(), far.parameters(), strict=True)
        if not one.equal(other)
    }
    assert differing == {"prefix", "positions"}
