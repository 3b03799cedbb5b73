"""Issuing and renewing tickets."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.seaweed import BUCKET, Seaweed
from support.tickets import Place, raises

from imgconv.errors import OptionError, StoreRefused, UsageError
from imgconv.stores import s3_ticket
from imgconv.stores.oss import Oss
from imgconv.stores.profiles import PROFILES
from imgconv.stores.s3 import S3
from imgconv.stores.s3_ticket import issue_ticket, renew_ticket
from imgconv.units import GiB


def test_what_cannot_be_issued(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in ("oss://bucket/key", "file:///folder/key", f"s3://{BUCKET}/a\tb"):
        with pytest.raises(UsageError, match="tickets are for s3://bucket/key alone"):
            issue_ticket(url)
    with raises(UsageError, "alone"):
        issue_ticket(place.object, store=Oss())
    for expires in (0, 604801):
        with raises(OptionError, f"expires={expires}"):
            issue_ticket(place.object, expires=expires)
    for parts in (1, 10_001):
        with raises(OptionError, f"parts={parts}: must be from 2 to 10000"):
            place.issue(parts=parts)
    with raises(OptionError, "not both"):
        place.issue(parts=3, size=4)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    with pytest.raises(StoreRefused, match="Unable to locate credentials"):
        issue_ticket(place.object, store=place.options())
    assert place.unfinished() == []


def test_a_renewal_is_for_the_same_object(place: Place) -> None:
    place.issue()
    text = place.file.read_text()
    with raises(UsageError, f"is for {place.object}, not for s3://{BUCKET}/another"):
        renew_ticket(f"s3://{BUCKET}/another", text)
    with raises(UsageError, "the ticket: is not a ticket"):
        renew_ticket(place.object, "{}")


@pytest.mark.parametrize(("size", "parts"), [(0, 2), (GiB, 66), (10**18, 10_000)])
def test_as_many_parts_as_the_size_takes(size: int, parts: int) -> None:
    assert s3_ticket._count(PROFILES["aws"], None, size) == parts


def test_at_aws_urls_lead_to_the_region(
    seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's own choice is a host that redirects for the first hours of a bucket."""
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    for name, host in {
        "plain": "https://plain.s3.eu-west-1.amazonaws.com/k?",
        "with.dots": "https://s3.eu-west-1.amazonaws.com/with.dots/k?",
    }.items():
        bucket = s3_ticket._opened(name, S3(region="eu-west-1"))
        assert bucket.sign("head_object", "k", 60, {}).startswith(host)
        bucket.close()


def test_without_boto3() -> None:
    program = (
        "import sys; sys.modules['botocore'] = None\n"
        "from imgconv.errors import UsageError\n"
        "from imgconv.stores.s3_ticket import issue_ticket\n"
        "try: issue_ticket('s3://bucket/key')\n"
        "except UsageError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("s3:// needs boto3: pip install imgconv[s3]\n", "")
