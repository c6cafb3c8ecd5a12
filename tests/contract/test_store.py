def test_x(store):
    assert store.load().revision == 0
    assert store.revision() == 0


def test_y(store):
    assert store.lead()
