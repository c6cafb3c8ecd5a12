"""Cluster documents of Nimbus become cluster files, and nothing of them is lost without a word."""

from __future__ import annotations

import base64
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vws.core.cluster import NetworkRequest
from vws.core.cluster_spec import ClusterFile
from vws.core.clusterfile import read_cluster_file
from vws.core.context import Introduce, Ssh
from vws.core.errors import InvalidRequest
from vws.core.nimbus import BYTES_MAX, import_nimbus

TORQUE = """\
<?xml version="1.0" encoding="UTF-8"?>
<cluster xmlns="http://www.globus.org/2008/12/nimbus/ctxdescription">
  <workspace>
    <active>true</active>
    <name>head-node</name>
    <image>base-cluster-01.gz</image>
    <quantity>1</quantity>
    <nic wantlogin="true">public</nic>
    <nic>private</nic>
    <ctx>
      <provides>
        <identity/>
        <role interface="private">torquemaster</role>
        <role>NFS_server</role>
      </provides>
      <requires>
        <identity/>
        <role name="torqueslave" hostname="true" pubkey="true"/>
        <data name="queue_conf"><![CDATA[set server ${x}
<two>
]]></data>
      </requires>
    </ctx>
    <deploy><memory>256</memory></deploy>
  </workspace>
  <workspace>
    <name>compute nodes of the cluster</name>
    <image>base-cluster-01.gz</image>
    <quantity>3</quantity>
    <nic>private</nic>
    <ctx>
      <provides><identity><ip>10.0.0.1</ip></identity><role>torqueslave</role></provides>
      <requires>
        <identity/>
        <role name="torquemaster" hostname="true" pubkey="true"/><role name="NFS_server"/><role name="nis"/>
      </requires>
    </ctx>
  </workspace>
</cluster>
"""


def read(document: str, name: str = "torque") -> ClusterFile:
    return read_cluster_file(import_nimbus(document, name).text, {}.__getitem__)


def of(*workspaces: str) -> str:
    return f"<cluster>{''.join(f'<workspace>{inner}</workspace>' for inner in workspaces)}</cluster>"


def test_workspaces_become_groups():
    head, compute = read(TORQUE).groups
    assert (head.name, head.request.image, head.request.count) == ("head-node", "base-cluster-01.gz", 1)
    assert (compute.name, compute.request.count) == ("compute-nodes-of", 3)
    assert (head.request.networks, compute.request.networks) == (("public", "private"), ("private",))
    assert (head.roles.provides, head.roles.requires) == (("torquemaster", "nfs-server"), ("torqueslave",))
    assert (compute.roles.provides, compute.roles.requires) == (("torqueslave",), ("torquemaster", "nfs-server"))


def test_networks_data_and_the_context():
    file = read(TORQUE)
    assert file.name == "torque"
    assert file.networks == (NetworkRequest("public", public=True), NetworkRequest("private", "10.21.0.0/24", True))
    (data,) = file.context.data
    assert (data.name, base64.b64decode(data.content_base64)) == ("queue-conf", b"set server ${x}\n<two>\n")
    assert (file.context.introduce, file.context.ssh) == (Introduce.ALL, Ssh.MUTUAL)


@pytest.mark.parametrize(
    "says",
    [
        "line 24: <deploy> was left out",
        "that torquemaster is on the interface private was left out",
        "the role 'NFS_server' is called nfs-server now",
        "the data 'queue_conf' of head-node is called queue-conf now",
        "all members get the data queue-conf, not only head-node",
        "the workspace 'compute nodes of the cluster' is the group compute-nodes-of now",
        "line 32: what <identity> says was left out",
        "compute-nodes-of requires nis, which no workspace provides: it was left out",
        "the image base-cluster-01.gz cannot be called so here",
        "private was a network of the site",
        "what members do as nfs-server, torquemaster, torqueslave was in their image",
        "memory, cpus and disk are the defaults",
    ],
)
def test_what_does_not_carry_over_is_told_and_stands_in_the_file(says):
    imported = import_nimbus(TORQUE, "torque")
    assert any(says in note for note in imported.notes)
    assert any(says in line for line in imported.text.splitlines() if line.startswith("# - "))


def test_of_a_broker_only_the_cluster_is_taken():
    secret = "<contact><brokerURL>u</brokerURL><secret>s3cret</secret></contact>"
    imported = import_nimbus(f"<nimbusctx>{secret}{of('<image>i</image>')}</nimbusctx>", "x")
    assert "s3cret" not in imported.text
    assert imported.notes[0].startswith("the contact of the broker and its secret were left out")


@pytest.mark.parametrize(
    ("requires", "introduce", "ssh"),
    [
        ("", Introduce.REQUIRED, Ssh.NONE),
        ('<role name="a"/>', Introduce.REQUIRED, Ssh.NONE),
        ('<role name="a" pubkey="true"/>', Introduce.REQUIRED, Ssh.MUTUAL),
        ("<identity/>", Introduce.ALL, Ssh.MUTUAL),
    ],
)
def test_who_hears_of_whom_is_as_it_was(requires, introduce, ssh):
    ctx = f"<image>i</image><ctx><provides><role>a</role></provides><requires>{requires}</requires></ctx>"
    context = read(of(ctx)).context
    assert (context.introduce, context.ssh) == (introduce, ssh)


def test_what_is_not_known_is_told():
    imported = import_nimbus(of("<image>i</image><kernel>k</kernel><active>false</active>"), "x")
    assert "line 1: <kernel> was left out" in imported.notes
    assert any("was not active" in note for note in imported.notes)


def test_equal_names_and_equal_data_stay_apart():
    data = '<image>i</image><ctx><requires><data name="{}">{}</data></requires></ctx>'
    file = read(of(*(f"<name>n</name>{data.format(name, text)}" for name, text in [("d", 1), ("d", 2), ("D", 1)])))
    assert [group.name for group in file.groups] == ["n", "n-2", "n-3"]
    assert {item.name: base64.b64decode(item.content_base64) for item in file.context.data} == {"d": b"1", "d-2": b"2"}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("", "line 1, column 1: this is not XML: no element found"),
        ("<cluster>\n<workspace></cluster>", "line 2, column 14: this is not XML: mismatched tag"),
        ("<html/>", "<html> is no cluster with workspaces"),
        ("<cluster/>", "is no cluster with workspaces"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><cluster/>', "line 1, column 13: a document type is not read"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><cluster>&x;</cluster>', "a document type is not read"),
        ("<cluster>&xxe;</cluster>", "undefined entity"),
        ("<a>" * 30, "line 1, column 61: this is nested too deep"),
        ('<?xml version="1.0" encoding="no-such"?><cluster/>', "unknown encoding"),
        (of("<image>i</image><quantity>0</quantity>"), "the quantity is '0'"),
        (of("<image>i</image><quantity>many</quantity>"), "the quantity is 'many'"),
        (of(*["<image>i</image><quantity>9999</quantity>"] * 2), "the cluster has 19998 members"),
        (of(*["<image>i</image>"] * 101), "there are too many workspaces"),
        (" " * (BYTES_MAX + 1), "the document has"),
    ],
)
def test_what_is_no_cluster_document_is_refused_with_its_place(document, says):
    with pytest.raises(InvalidRequest) as caught:
        import_nimbus(document, "x")
    assert says in caught.value.problem
    assert caught.value.details["line"] >= 1


WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t ${}&<>'\"#:-|~%"), max_size=25)


@st.composite
def workspaces(draw: st.DrawFn) -> str:
    def some(make: str, *, attribute: bool = False) -> str:
        quote = quoteattr if attribute else escape
        return "".join(make.format(quote(word)) for word in draw(st.lists(WORDS, max_size=3)))

    data = "".join(
        f"<data name={quoteattr(draw(WORDS))}>{escape(draw(WORDS))}</data>" for _ in range(draw(st.integers(0, 3)))
    )
    return (
        f"<name>{escape(draw(WORDS))}</name><image>{escape(draw(WORDS))}</image>"
        f"<quantity>{draw(st.integers(1, 300))}</quantity>{some('<nic>{}</nic>')}"
        f"<ctx><provides>{some('<role>{}</role>')}</provides>"
        f"<requires>{some('<role name={}/>', attribute=True)}{data}</requires></ctx>"
    )


@pytest.mark.parametrize("name", ["08", "1-2", "007", "0x1f", "1e3"])
def test_a_name_that_reads_as_a_number_stays_a_text(name):
    assert read(of("<image>debian</image><quantity>1</quantity>"), name).name == name


@settings(max_examples=150, deadline=None)
@given(st.lists(workspaces(), min_size=1, max_size=2), WORDS)
def test_whatever_a_document_says_its_import_is_a_cluster_file(described, name):
    file = read(of(*described), name)
    assert len(file.groups) == len(described)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_document_with_noise_in_it_is_read_or_refused(data):
    at = data.draw(st.integers(0, len(TORQUE)))
    noise = data.draw(st.sampled_from(["<", ">", "&", "</", '"', "<!--", "]]>", "<!DOCTYPE x>", "\0", "\ud7ff", "é"]))
    text = TORQUE[:at] + noise + TORQUE[at + data.draw(st.integers(0, 10)) :]
    try:
        imported = import_nimbus(text, "x")
    except InvalidRequest as error:
        imported, line = None, error.details["line"]
    assert read_cluster_file(imported.text, {}.__getitem__) if imported else line >= 1
