from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from tf_reconcile.errors import ConfigError
from tf_runtime.settings import (
    Seconds,
    Settings,
    check_url,
    is_loopback,
    load_settings,
    parse_listen,
    read_secret,
)


class Range(Settings, frozen=True):
    first: Annotated[int, msgspec.Meta(ge=1, le=4094)]
    last: int = 4094


class Sample(Settings, frozen=True):
    host: str
    vlan: Range | None = None
    ranges: tuple[Range, ...] = ()


class Timed(Settings, frozen=True):
    limit_s: Seconds


def load(tmp_path: Path, text: str) -> Sample:
    path = tmp_path / "sample.yaml"
    path.write_text(text)
    return load_settings(path, Sample)


def error(tmp_path: Path, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "sample.yaml") in str(caught.value)
    return caught.value


def test_a_good_file_becomes_a_typed_value_with_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "host: a\nvlan: {first: 7}\n") == Sample(host="a", vlan=Range(first=7, last=4094))


def test_an_unknown_key_is_named_together_with_the_known_ones(tmp_path: Path) -> None:
    found = error(tmp_path, "host: a\nvlan: {first: 1, lsat: 2}\n")

    assert (found.key, found.value, found.allowed) == ("vlan.lsat", 2, "one of first, last")


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    assert error(tmp_path, "vlan: {last: 3}\nhost: a").key == "vlan.first"


def test_a_wrong_type_names_key_value_and_what_is_allowed(tmp_path: Path) -> None:
    found = error(tmp_path, "host: a\nvlan: {first: many}\n")

    assert (found.key, found.value) == ("vlan.first", "many")
    assert found.allowed is not None
    assert "int" in found.allowed


def test_a_value_out_of_range_names_key_value_and_the_limit(tmp_path: Path) -> None:
    found = error(tmp_path, "host: a\nranges: [{first: 2}, {first: 4095}]\n")

    assert (found.key, found.value) == ("ranges[1].first", 4095)
    assert "4094" in str(found.allowed)


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    assert "object" in str(error(tmp_path, "- a\n- b\n"))


def test_a_file_that_is_not_yaml_is_refused_in_one_line(tmp_path: Path) -> None:
    assert "YAML" in str(error(tmp_path, "host: [a\nb: }"))


def test_a_key_that_comes_twice_is_refused_instead_of_the_last_one_taken(tmp_path: Path) -> None:
    assert "the key 'host' comes twice" in str(error(tmp_path, "host: a\nvlan: {first: 1}\nhost: b\n"))


def test_what_is_merged_in_may_be_overridden(tmp_path: Path) -> None:
    text = "host: a\nranges:\n- &first {first: 2, last: 9}\n- {<<: *first, last: 5}\n"
    assert load(tmp_path, text).ranges[1] == Range(first=2, last=5)


def test_a_date_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    assert "month" in str(error(tmp_path, "host: 2026-13-45\n"))


@pytest.mark.parametrize("seconds", [".inf", ".nan", "-1", "0", "604801"])
def test_a_time_limit_is_a_number_of_seconds_that_clocks_can_take(tmp_path: Path, seconds: str) -> None:
    path = tmp_path / "timed.yaml"
    path.write_text(f"limit_s: {seconds}\n")
    with pytest.raises(ConfigError, match="limit_s: value out of range"):
        load_settings(path, Timed)


@pytest.mark.parametrize("url", ["http://10.0.0.1:8082", "https://[::1]:8082", "http://tf"])
def test_the_url_of_a_server_is_taken(url: str) -> None:
    assert check_url(url, file="x.yaml", key="url") == url


@pytest.mark.parametrize(
    "url", ["", "localhost:9091", "10.0.0.1", "ftp://tf", "http://", "http://tf:99999", "http://[::1"]
)
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="url: not a URL"):
        check_url(url, file="x.yaml", key="url")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_settings(tmp_path / "none.yaml", Sample)


def test_a_secret_is_read_without_its_newline(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("s3cret \n")

    assert read_secret(path, file="x.yaml", key="password_file") == "s3cret "


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_an_absent_or_empty_secret_is_refused_by_name(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_text(content)

    with pytest.raises(ConfigError) as caught:
        read_secret(path, file="x.yaml", key="password_file")
    assert (caught.value.file, caught.value.key, caught.value.value) == ("x.yaml", "password_file", str(path))


@pytest.mark.parametrize(
    ("text", "parsed"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:0", ("::1", 0)), ("localhost:9", ("localhost", 9))],
)
def test_an_address_to_listen_on_is_parsed(text: str, parsed: tuple[str, int]) -> None:
    assert parse_listen(text, file="x.yaml", key="listen") == parsed


@pytest.mark.parametrize("text", ["", "80", "host", "host:", "host:70000", ":80", "::1:80", "[]:80"])
def test_what_is_no_address_to_listen_on_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="address:port"):
        parse_listen(text, file="x.yaml", key="listen")


@pytest.mark.parametrize(
    ("host", "is_ours_alone"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("vm", False)],
)
def test_only_what_no_other_machine_reaches_is_loopback(host: str, is_ours_alone: bool) -> None:
    assert is_loopback(host) is is_ours_alone
