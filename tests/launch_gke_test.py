"""gke.sh renders manifests that the cluster accepts and that mean what they say."""

import math

import fake_commands
import jobset_schema
import jsonschema
import kubernetes_validate
import pytest
import yaml
from fake_commands import Answer

_SETTINGS = {"IMAGE": "example.com/i:t", "BUCKET": "b"}
_DEVICES = ["tpu", "gpu"]
_KUBECTL = ["kubectl", "--namespace=default"]


@pytest.fixture
def fakes(tmp_path):
  fakes = fake_commands.FakeCommands(tmp_path)
  fakes.add("sleep")
  fakes.add("kubectl")
  return fakes


def _run(fakes, *words, **settings):
  return fakes.run("gke.sh", *words, **(_SETTINGS | settings))


def _render(fakes, *flags, **settings):
  done = _run(fakes, "render", *(flags or ("--config=c.py",)), **settings)
  assert done.returncode == 0, done.stderr
  return yaml.safe_load(done.stdout)


def _job(jobset):
  (replicated,) = jobset["spec"]["replicatedJobs"]
  return replicated["template"]["spec"]


def _pod(jobset):
  return _job(jobset)["template"]["spec"]


def _container(jobset):
  (container,) = _pod(jobset)["containers"]
  return container


@pytest.mark.parametrize("device", _DEVICES)
@pytest.mark.parametrize("more", [{}, {"SPOT": "1", "QUEUE": "q"}])
def test_manifests_fit_the_schemas_of_jobset_and_kubernetes(
    fakes, device, more
):
  jobset = _render(fakes, DEVICE=device, **more)
  jsonschema.validate(jobset, jobset_schema.JOBSET)
  job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "n"}}
  job["spec"] = _job(jobset)
  # 1.31: pod failure policies are stable.
  for version in ("1.31", kubernetes_validate.latest_version()):
    kubernetes_validate.validate(job, version, strict=True)


def test_the_schemas_refuse_what_is_misspelt(fakes):
  jobset = _render(fakes)
  jobset["spec"]["failurePolicy"]["maxRestart"] = 3
  with pytest.raises(jsonschema.ValidationError, match="maxRestart"):
    jsonschema.validate(jobset, jobset_schema.JOBSET)
  job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "n"}}
  job["spec"] = _job(jobset) | {"backoffLimits": 0}
  with pytest.raises(
      kubernetes_validate.ValidationError, match="backoffLimits"
  ):
    kubernetes_validate.validate(job, "1.31", strict=True)


def _action(job, code, *, disrupted=False):
  """What Kubernetes does about a pod: its first rule that fits, or counts it."""
  for rule in job["podFailurePolicy"]["rules"]:
    if "onExitCodes" in rule and code in rule["onExitCodes"]["values"]:
      return rule["action"]
    if "onPodConditions" in rule and disrupted:
      return rule["action"]
  return "Count"


@pytest.mark.parametrize("device", _DEVICES)
def test_exit_codes_lead_to_the_right_action(fakes, device):
  jobset = _render(fakes, DEVICE=device, MAX_FAILURES="5")
  job = _job(jobset)
  assert [_action(job, code) for code in (75, 76)] == ["Ignore"] * 2
  assert _action(job, 2) == "FailJob"
  assert _action(job, 1) == _action(job, 137) == "Count"
  assert _action(job, 137, disrupted=True) == "Ignore"
  # Counted once a job fails, and the set starts again, five times; a refused
  # input has a reason of its own, which ends the set.
  assert job["backoffLimit"] == 0
  policy = jobset["spec"]["failurePolicy"]
  assert policy["maxRestarts"] == 5
  (rule,) = policy["rules"]
  assert rule["action"] == "FailJobSet"
  assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
  # Kubernetes: a pod failure policy needs it; rules are of the main container.
  assert _pod(jobset)["restartPolicy"] == "Never"
  names = {
      rule["onExitCodes"]["containerName"]
      for rule in job["podFailurePolicy"]["rules"]
      if "onExitCodes" in rule
  }
  assert names == {_container(jobset)["name"]}
  assert _pod(jobset)["terminationGracePeriodSeconds"] >= 60


@pytest.mark.parametrize(
    "topology, chips_per_host, hosts",
    [("4x4", 4, 4), ("16x16", 4, 64), ("2x4", 8, 1), ("2x2x4", 4, 4)],
)
def test_a_slice_has_a_pod_for_each_of_its_hosts(
    fakes, topology, chips_per_host, hosts
):
  settings = {"TOPOLOGY": topology, "CHIPS_PER_HOST": str(chips_per_host)}
  jobset = _render(fakes, **settings)
  job = _job(jobset)
  assert job["parallelism"] == job["completions"] == hosts
  chips = _container(jobset)["resources"]["limits"]["google.com/tpu"]
  assert chips * hosts == math.prod(map(int, topology.split("x")))
  selector = _pod(jobset)["nodeSelector"]
  assert selector["cloud.google.com/gke-tpu-topology"] == topology
  assert job["completionMode"] == "Indexed"


def test_gpu_processes_find_each_other(fakes):
  jobset = _render(fakes, DEVICE="gpu", HOSTS="3")
  args = _container(jobset)["args"]
  assert args[:3] == [
      "--coordinator=$(COORDINATOR):8476",
      "--num_processes=3",
      "--process_id=$(JOB_COMPLETION_INDEX)",
  ]
  (variable,) = _container(jobset)["env"]
  # jobset_types.go: CoordinatorKey.
  path = variable["valueFrom"]["fieldRef"]["fieldPath"]
  assert path == "metadata.annotations['jobset.sigs.k8s.io/coordinator']"
  (replicated,) = jobset["spec"]["replicatedJobs"]
  coordinator = jobset["spec"]["coordinator"]
  assert coordinator["replicatedJob"] == replicated["name"]
  assert _container(jobset)["ports"] == [{"containerPort": 8476}]
  assert jobset["spec"]["network"]["publishNotReadyAddresses"] is True


@pytest.mark.parametrize("device", _DEVICES)
def test_hosts_wait_for_the_names_that_jobset_gives(fakes, device):
  jobset = _render(fakes, DEVICE=device, NAME="run7")
  (replicated,) = jobset["spec"]["replicatedJobs"]
  (waiter,) = _pod(jobset)["initContainers"]
  pattern, hosts = waiter["args"]
  # jobset_types.go, Network: NAME-JOB-JOB_INDEX-POD_INDEX.SUBDOMAIN.
  assert pattern.format(2) == f"run7-{replicated['name']}-0-2.run7"
  assert int(hosts) == _job(jobset)["completions"]
  assert waiter["image"] == _container(jobset)["image"] == "example.com/i:t"


def test_flags_reach_the_program_as_given(fakes):
  flags = ["--config=configs/yt8m.py", 'a "b" \\c', "x: y # z", "on"]
  assert _container(_render(fakes, *flags))["args"][1:] == flags


@pytest.mark.parametrize("device", _DEVICES)
def test_spot_and_queue_are_asked_for_only_where_wanted(fakes, device):
  for spot in (False, True):
    settings = {"DEVICE": device, "SPOT": str(int(spot))}
    jobset = _render(fakes, QUEUE="q" if spot else "", **settings)
    keys = [toleration["key"] for toleration in _pod(jobset)["tolerations"]]
    assert ("cloud.google.com/gke-spot" in keys) == spot
    selector = _pod(jobset)["nodeSelector"]
    assert selector.get("cloud.google.com/gke-spot") == (
        "true" if spot else None
    )
    queue = jobset["metadata"]["labels"].get("kueue.x-k8s.io/queue-name")
    assert queue == ("q" if spot else None)


@pytest.mark.parametrize("device", _DEVICES)
def test_the_bucket_is_mounted_where_the_program_may_write(fakes, device):
  pod = _pod(_render(fakes, DEVICE=device))
  volume = pod["volumes"][0]["csi"]
  assert volume["volumeAttributes"]["bucketName"] == "b"
  mounts = {m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
  assert "/bucket" in mounts
  user = pod.get("securityContext", {}).get("runAsUser")
  options = volume["volumeAttributes"]["mountOptions"].split(",")
  assert user is None or f"uid={user}" in options


def test_apply_gives_the_rendered_manifest_to_the_cluster(fakes):
  (fakes.bin / "kubectl").write_text(
      '#!/usr/bin/env bash\nfile=${*: -1}\ncp "${file#--filename=}"'
      ' "$HOME/applied.yaml"\n'
  )
  assert _run(fakes, "apply", "--config=c.py").returncode == 0
  applied = yaml.safe_load((fakes.folder / "applied.yaml").read_text())
  assert applied == _render(fakes)


def test_status_logs_and_delete_call_kubectl_so(fakes):
  for words, more in ((["status"], {}), (["logs"], {"WORKER": "2"})):
    assert _run(fakes, *words, **more).returncode == 0
  assert _run(fakes, "delete").returncode == 0
  jobset = "jobset.sigs.k8s.io/jobset-name=chain-jax"
  job = "jobset.sigs.k8s.io/replicatedjob-name=slice"
  index = "batch.kubernetes.io/job-completion-index=2"
  assert fakes.calls() == [
      [*_KUBECTL, "get", "jobset", "chain-jax"],
      [*_KUBECTL, "get", "pods", f"--selector={jobset}"],
      [*_KUBECTL, "logs", "--container=chain-jax", "--tail=100", "--prefix"]
      + [f"--selector={jobset},{job},{index}"],
      [*_KUBECTL, "delete", "jobset", "chain-jax", "--ignore-not-found"],
  ]


def test_a_cluster_that_does_not_answer_is_asked_again(fakes):
  flaky = Answer(1, "", "Unable to connect to the server: i/o timeout")
  fakes.add("kubectl", ("", [flaky, flaky, Answer(0)]))
  assert _run(fakes, "delete").returncode == 0
  assert len(fakes.calls("kubectl")) == 3
  assert fakes.calls("sleep") == [["sleep", "10"], ["sleep", "20"]]


def test_dry_run_prints_the_call_and_makes_none(fakes):
  done = _run(fakes, "apply", "--f", DRY_RUN="1")
  assert done.stdout.startswith("+ kubectl --namespace=default apply ")
  assert fakes.calls() == []


@pytest.mark.parametrize(
    "words, settings, said",
    [
        (["apply", "--f"], {"IMAGE": ""}, "error: IMAGE must be set, such as"),
        (["render", "--f"], {"BUCKET": ""}, "error: BUCKET must be set"),
        (["apply"], {}, "error: no flags for the run"),
        (["apply", "--f"], {"DEVICE": "abacus"}, "error: DEVICE must be tpu"),
        (["apply", "--f"], {"TOPOLOGY": "4*4"}, "error: TOPOLOGY must be"),
        (["apply", "--f"], {"TOPOLOGY": "3x3"}, "error: TOPOLOGY 3x3 has 9"),
        (["sing"], {}, "error: COMMAND must be one of"),
    ],
)
def test_a_mistake_gives_one_line_and_exit_code_2(fakes, words, settings, said):
  done = _run(fakes, *words, **settings)
  assert done.returncode == 2 and done.stdout == ""
  assert done.stderr.startswith(said) and done.stderr.count("\n") == 1
  assert fakes.calls() == []
