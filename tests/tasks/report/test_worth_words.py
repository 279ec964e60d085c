"""What is said of members' worth: noise is named, and nothing is said that was not measured."""

from esci_tournament.tasks.report import worth_words


def test_members_that_are_no_more_than_noise_are_named(summary, build_summary):
    assert worth_words.noise(summary).endswith("e5-small v1: no more than noise.")
    best = [model for model in summary.models if model.above_noise is not False]
    assert worth_words.noise(build_summary(models=best)).endswith("Every member is worth more.")


def test_neighbours_that_are_tied_are_named(summary, build_summary):
    told = "Re-fits do not tell apart in the ranking: gatv2-clicks/1 and e5-small/1."
    assert worth_words.ranking(summary) == f"{worth_words.noise(summary)} {told}"
    assert worth_words.ranking(build_summary(tied=[])) == worth_words.noise(summary)


def test_what_was_not_measured_is_not_told(sparse_summary):
    told = (worth_words.ranking, worth_words.checked, worth_words.value)
    assert [text(sparse_summary) for text in told] == ["", "", ""]
    assert worth_words.drop_one(sparse_summary.models[0]) == "–"
