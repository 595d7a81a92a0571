"""What JobSet v1alpha2 allows around the Jobs that it makes.

Source: kubernetes-sigs/jobset, api/jobset/v1alpha2/jobset_types.go, the fields
that a user writes. The Jobs inside are validated by Kubernetes' own schema.
"""

_STRING = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
# jobset_types.go: FailurePolicyRule.Name.
_RULE_NAME = "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
# Names of Kubernetes: RFC 1123 labels.
_LABEL = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}


def _strings(**more):
  return {"type": "array", "items": _STRING, "uniqueItems": True, **more}


def _closed(required=(), **properties):
  return {
      "type": "object",
      "additionalProperties": False,
      "required": list(required),
      "properties": properties,
  }


_FAILURE_POLICY = _closed(
    maxRestarts=_COUNT,
    restartStrategy={"enum": ["Recreate", "BlockingRecreate"]},
    rules={
        "type": "array",
        "items": _closed(
            required=["name", "action"],
            name={"type": "string", "pattern": _RULE_NAME},
            action={
                "enum": [
                    "FailJobSet",
                    "RestartJobSet",
                    "RestartJobSetAndIgnoreMaxRestarts",
                ]
            },
            # batch/v1, reasons of the condition Failed of a Job.
            onJobFailureReasons={
                "type": "array",
                "uniqueItems": True,
                "items": {
                    "enum": [
                        "BackoffLimitExceeded",
                        "DeadlineExceeded",
                        "FailedIndexes",
                        "MaxFailedIndexesExceeded",
                        "PodFailurePolicy",
                    ]
                },
            },
            targetReplicatedJobs=_strings(),
        ),
    },
)
_REPLICATED_JOB = _closed(
    required=["name", "template"],
    name=_LABEL,
    groupName=_STRING,
    replicas=_COUNT,
    # batch/v1 JobTemplateSpec.
    template=_closed(
        required=["spec"], metadata={"type": "object"}, spec={"type": "object"}
    ),
    dependsOn={
        "type": "array",
        "items": _closed(
            required=["name", "status"],
            name=_STRING,
            status={"enum": ["Ready", "Complete"]},
        ),
    },
)
_STRING_MAP = {"type": "object", "additionalProperties": _STRING}

JOBSET = _closed(
    required=["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
    kind={"const": "JobSet"},
    metadata=_closed(
        required=["name"],
        name=_LABEL,
        namespace=_LABEL,
        labels=_STRING_MAP,
        annotations=_STRING_MAP,
    ),
    spec=_closed(
        required=["replicatedJobs"],
        replicatedJobs={
            "type": "array",
            "items": _REPLICATED_JOB,
            "minItems": 1,
        },
        network=_closed(
            enableDNSHostnames={"type": "boolean"},
            subdomain=_LABEL,
            publishNotReadyAddresses={"type": "boolean"},
        ),
        successPolicy=_closed(
            required=["operator"],
            operator={"enum": ["All", "Any"]},
            targetReplicatedJobs=_strings(),
        ),
        failurePolicy=_FAILURE_POLICY,
        suspend={"type": "boolean"},
        coordinator=_closed(
            required=["replicatedJob"],
            replicatedJob=_STRING,
            jobIndex=_COUNT,
            podIndex=_COUNT,
        ),
        managedBy={"type": "string", "maxLength": 63},
        ttlSecondsAfterFinished=_COUNT,
    ),
)
