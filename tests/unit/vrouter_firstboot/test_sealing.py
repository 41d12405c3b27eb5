import pytest

from tf_reconcile.errors import ConfigError
from vrouter_firstboot.sealing import SECRET_NAMES, generate_key, public_key_of, seal, unseal

KEY = generate_key()
SECRETS = {"esxi-password": "pä$$ word", "tf-token": "t" * 200}


def test_what_was_sealed_to_a_vm_is_opened_by_it() -> None:
    assert unseal(seal(SECRETS, public_key=public_key_of(KEY)), private_key=KEY, file="guestinfo") == SECRETS


def test_a_sealed_text_is_one_line_that_shows_nothing_and_is_never_the_same_twice() -> None:
    first, second = (seal(SECRETS, public_key=public_key_of(KEY)) for _ in range(2))
    assert first != second
    assert len(first.split()) == 1
    for secret in (*SECRETS, *SECRETS.values()):
        assert secret not in first


def test_line_breaks_that_a_form_put_into_it_do_no_harm() -> None:
    sealed = seal(SECRETS, public_key=public_key_of(KEY))
    assert unseal(f" {sealed[:40]}\r\n{sealed[40:]}\n", private_key=KEY, file="guestinfo") == SECRETS


def test_another_vm_cannot_open_it_and_is_told_why() -> None:
    with pytest.raises(ConfigError, match=r"guestinfo: sealed: the sealed secrets cannot be opened.*public key"):
        unseal(seal(SECRETS, public_key=public_key_of(KEY)), private_key=generate_key(), file="guestinfo")


@pytest.mark.parametrize("change", [lambda s: s[:-4] + "AAA=", lambda s: s[:30], lambda s: s.replace("1:", "1:!")])
def test_a_changed_text_is_refused(change: object) -> None:
    assert callable(change)
    with pytest.raises(ConfigError):
        unseal(change(seal(SECRETS, public_key=public_key_of(KEY))), private_key=KEY, file="guestinfo")


@pytest.mark.parametrize("text", ["", "hunter2", "tf-sealed-2:AAAA"])
def test_what_is_no_sealed_text_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not a sealed text"):
        unseal(text, private_key=KEY, file="guestinfo")


@pytest.mark.parametrize("key", ["", "AAAA", "tf-seal-key-1:AAAA", "tf-seal-key-1:§"])
def test_what_is_no_public_key_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match="not a vRouter VM's public key"):
        seal(SECRETS, public_key=key)


def test_an_unknown_name_is_refused_when_sealing_with_the_names_there_are() -> None:
    with pytest.raises(ConfigError, match=f"'esx-password'.*allowed: one of {', '.join(SECRET_NAMES)}"):
        seal({"esx-password": "x"}, public_key=public_key_of(KEY))


@pytest.mark.parametrize("value", ["", "two\nlines", "nul\0"])
def test_a_secret_that_is_no_line_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(ConfigError) as refused:
        seal({"esxi-password": value}, public_key=public_key_of(KEY))
    assert "lines" not in str(refused.value).replace("one line", "")
