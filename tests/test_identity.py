from imgconv.identity import Identity


def test_ids_follow_from_the_text_alone() -> None:
    assert Identity("disk").uuid("vdi") == Identity("disk", timestamp=7).uuid("vdi")
    assert Identity("disk").content_id("vmdk") == Identity("disk").content_id("vmdk")


def test_other_disks_and_other_purposes_have_other_ids() -> None:
    texts = [f"disk-{i}" for i in range(50)]
    ids = {Identity(t).uuid(p) for t in texts for p in ("vdi image", "vhd")}
    assert len(ids) == 100


def test_ids_are_well_formed() -> None:
    for i in range(200):
        raw = Identity(str(i)).uuid("x")
        assert len(raw) == 16
        assert raw[6] >> 4 == 8
        assert raw[8] >> 6 == 0b10
        assert 0 <= Identity(str(i)).content_id("x") < 0xFFFFFFFE


def test_undecodable_names_have_an_identity_too() -> None:
    assert Identity("disk\udcff").uuid("x") != Identity("disk").uuid("x")
