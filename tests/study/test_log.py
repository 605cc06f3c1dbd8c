"""What a study logs goes to its own file while it runs, and only then."""

from __future__ import annotations

from ofbnas.study.cluster.worker import log, log_to


def test_the_log_is_in_the_file_while_a_study_runs_and_where_the_program_has_it_afterwards(
    tmp_path, caplog
):
    with log_to(tmp_path / "study.log"):
        log.info("a trial")
    log.info("below the program's level")
    log.warning("a parent")
    assert (tmp_path / "study.log").read_text().endswith(" INFO a trial\n")
    assert caplog.messages == ["a parent"]
