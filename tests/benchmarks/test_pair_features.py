import json

from benchmarks import pair_features


def test_a_quick_run_compares_trees_with_their_peers(capsys):
    assert pair_features.main(["--quick", "--json", "--popularity", "clicks"]) == 0
    found = json.loads(capsys.readouterr().out)["figures"]
    macro = {one["peer"]: one["peer_value"] for one in found if one["name"] == "macro_f1"}
    assert set(macro) == {pair_features.REGRESSION, pair_features.FREQUENT}
    assert 0 < macro[pair_features.FREQUENT] < next(one["value"] for one in found if one["name"] == "macro_f1")
