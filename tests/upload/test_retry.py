"""What is repeated, how often, and how long after."""

from collections.abc import Callable

import pytest

from imgconv.errors import (
    ContentDamaged,
    CredentialsExpired,
    StoreError,
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
    UploadGone,
)
from imgconv.upload.retry import Backoff, Retry


class Story:
    """A request that fails as told, then succeeds; notes every pause."""

    def __init__(self, *errors: StoreError, renewable: bool = False, patience: float = 300.0):
        self.left = list(errors)
        self.pauses: list[float] = []
        self.heard: list[StoreError] = []
        self.renewals = 0
        self.renewable = renewable
        backoff = Backoff(patience=patience)
        self.retry = Retry(
            backoff, wait=self.pauses.append, renew=self.renew, on_failure=self.heard.append
        )

    def renew(self) -> bool:
        self.renewals += 1
        return self.renewable

    def request(self) -> str:
        if self.left:
            raise self.left.pop(0)
        return "done"


def many(kind: Callable[[str], StoreError], count: int) -> list[StoreError]:
    return [kind("again") for _ in range(count)]


def test_what_may_pass_is_repeated_until_it_does() -> None:
    story = Story(*many(StoreUnavailable, 12))
    assert story.retry(story.request) == "done"
    assert len(story.pauses) == len(story.heard) == 12
    for failures, pause in enumerate(story.pauses):
        assert 0 <= pause <= min(20.0, 0.2 * 2**failures)


def test_pauses_are_random() -> None:
    """Clients that failed together must not come back together."""
    pauses = {Backoff().pause(6) for _ in range(50)}
    assert len(pauses) > 40


@pytest.mark.parametrize("kind", [StoreRefused, UploadGone])
def test_what_will_not_pass_is_not_repeated(kind: type[StoreError]) -> None:
    story = Story(kind("no"))
    with pytest.raises(kind):
        story.retry(story.request)
    assert story.pauses == story.heard == []


def test_patience_ends() -> None:
    story = Story(*many(StoreUnavailable, 1000), patience=0.0)
    with pytest.raises(StoreUnavailable):
        story.retry(story.request)
    assert len(story.pauses) <= 1


def test_a_store_may_say_how_long_to_wait() -> None:
    story = Story(StoreThrottled("slow down", 17.0))
    story.retry(story.request)
    assert story.pauses[0] >= 17.0


def test_but_not_for_ever() -> None:
    story = Story(StoreThrottled("slow down", 1e9))
    with pytest.raises(StoreThrottled):
        story.retry(story.request)


def test_damage_is_believed_the_third_time() -> None:
    story = Story(*many(ContentDamaged, 2))
    assert story.retry(story.request) == "done"
    story = Story(*many(ContentDamaged, 3))
    with pytest.raises(ContentDamaged):
        story.retry(story.request)


def test_expired_credentials_are_renewed_once() -> None:
    story = Story(CredentialsExpired("old"), renewable=True)
    assert story.retry(story.request) == "done"
    assert story.renewals == 1
    story = Story(CredentialsExpired("old"), CredentialsExpired("old"), renewable=True)
    with pytest.raises(CredentialsExpired):
        story.retry(story.request)
    story = Story(CredentialsExpired("old"))
    with pytest.raises(CredentialsExpired):
        story.retry(story.request)
