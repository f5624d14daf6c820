"""The Croissant description of a release (MLCommons Croissant 1.0, with its Responsible AI vocabulary 1.0).

Made of the manifest and the shards' hashes alone, so that the same release has the same bytes. Each config is a
record set whose fields are the columns of its schema; a column of columns, as ``findings``, has one field per
finding, whose ``@id`` has ``_`` for a blank.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from cxr_max.builders.sources.base import SourceInfo
from cxr_max.schemas import schema_of

if TYPE_CHECKING:
    import pyarrow as pa

CONFORMS_TO: Final = ("http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0")
PARQUET: Final = "application/x-parquet"
_TERMS: Final = (
    "citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet",
    "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet",
    "references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
)  # fmt: skip
_CONTEXT: Final[Mapping[str, Any]] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    **{term: f"cr:{term}" for term in _TERMS},
}
_SPDX: Final = {
    "apache-2.0": "Apache-2.0",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "cc-by-nc-nd-4.0": "CC-BY-NC-ND-4.0",
    "cc-by-nc-sa-4.0": "CC-BY-NC-SA-4.0",
    "cc-by-sa-4.0": "CC-BY-SA-4.0",
    "cc0-1.0": "CC0-1.0",
    "mit": "MIT",
    "odbl": "ODbL-1.0",
    "odc-by": "ODC-By-1.0",
    "pddl": "PDDL-1.0",
}
"""Licences of the Hub that SPDX has under another spelling."""


def title_of(manifest: Mapping[str, Any]) -> str:
    """What the release is called."""
    return f"CXR-MAX reasoning trajectories{' (simulated demo)' if manifest['simulated'] else ''}"


def croissant(manifest: Mapping[str, Any], shards: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The JSON-LD document, as plain JSON values.

    Args:
        shards: ``bytes`` and ``sha256`` of every Parquet file, by its path in the release.
    """
    info = SourceInfo(**manifest["source"])
    counts = manifest["counts"]["trajectories"]
    configs = list(manifest["counts"])
    return {
        "@context": dict(_CONTEXT),
        "@type": "sc:Dataset",
        "name": title_of(manifest),
        "description": _description(manifest, info),
        "conformsTo": list(CONFORMS_TO),
        "license": f"https://spdx.org/licenses/{_SPDX[info.licence]}.html"
        if info.licence in _SPDX
        else f"{info.licence}: the terms of {info.title}",
        **({"citeAs": info.citation} if info.citation else {}),
        **({"datePublished": counts["last_reply"][:10]} if counts["last_reply"] else {}),
        "version": f"{manifest['schema_version']}.0.0",
        "sdVersion": manifest["trajectories_digest"],
        "inLanguage": "en",
        "keywords": ["chest radiograph", "radiology", "reasoning", "multimodal", "preference optimization"],
        "distribution": [*_file_objects(shards), *map(_file_set, configs)],
        "recordSet": [_record_set(config, manifest["schema_version"]) for config in configs],
        **{f"rai:{name}": text for name, text in _responsible(manifest, info).items()},
    }


def _description(manifest: Mapping[str, Any], info: SourceInfo) -> str:
    counts = manifest["counts"]["trajectories"]
    simulated = " No model answered: the teachers are simulated." if manifest["simulated"] else ""
    return (
        f"{counts['rows']:,} replies of {len(counts['by_teacher'])} multimodal models to chest radiographs of"
        f" {counts['studies']:,} studies of {counts['subjects']:,} subjects ({info.title}), with what each claims"
        f" as 14 CheXpert findings.{simulated} No image is part of it."
    )


def _file_objects(shards: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for path, entry in sorted(shards.items()):
        yield {
            "@type": "cr:FileObject",
            "@id": path,
            "name": path,
            "contentUrl": path,
            "contentSize": f"{entry['bytes']} B",
            "encodingFormat": PARQUET,
            "sha256": entry["sha256"],
        }


def _file_set(config: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{config}-shards",
        "name": f"{config}-shards",
        "description": f"All shards of the config {config}; a file's name begins with its split.",
        "encodingFormat": PARQUET,
        "includes": f"data/{config}/*.parquet",
    }


def _record_set(config: str, version: int) -> dict[str, Any]:
    key = {"key": {"@id": "trajectories/trajectory_id"}} if config == "trajectories" else {}
    return {
        "@type": "cr:RecordSet",
        "@id": config,
        "name": config,
        **key,
        "field": [_field(config, field, field.name, "") for field in schema_of(config, version)],
    }


def _field(parent: str, field: "pa.Field", column: str, path: str) -> dict[str, Any]:
    """A column, or with a ``path`` (JSONPath) a part of one."""
    import pyarrow as pa

    name = f"{parent}/{field.name}".replace(" ", "_")
    described = {"description": field.metadata[b"description"].decode()} if field.metadata else {}
    head = {"@type": "cr:Field", "@id": name, "name": field.name, **described}
    if pa.types.is_struct(field.type):
        return {**head, "subField": [_field(name, sub, column, f"{path}.'{sub.name}'") for sub in field.type]}
    listed = pa.types.is_list(field.type)
    source: dict[str, Any] = {
        "fileSet": {"@id": f"{parent.partition('/')[0]}-shards"},
        "extract": {"column": column},
    }
    if path:
        source["transform"] = {"jsonPath": f"${path}"}
    kind = _data_type(field.type.value_type if listed else field.type)
    return {**head, "dataType": kind, **({"repeated": True} if listed else {}), "source": source}


def _data_type(kind: "pa.DataType") -> str:
    import pyarrow as pa

    if pa.types.is_integer(kind):
        return "sc:Integer"
    if pa.types.is_floating(kind):
        return "sc:Float"
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    return "sc:Date" if pa.types.is_timestamp(kind) else "sc:Text"


def _responsible(manifest: Mapping[str, Any], info: SourceInfo) -> dict[str, Any]:
    """The Responsible AI properties; each says what holds for this release."""
    counts = manifest["counts"]["trajectories"]
    first, last = counts["first_reply"], counts["last_reply"]
    return {
        "dataCollection": _collection(manifest, info),
        "dataCollectionType": ["Machine generated" if not manifest["simulated"] else "Simulations"],
        "dataCollectionMissingData": (
            f"{manifest['missing']['gaps']} image sets could not be asked about and"
            f" {manifest['missing']['failed']} requests have no reply; such rows are left out, never imputed."
        ),
        **({"dataCollectionTimeframe": [first[:10], last[:10]]} if first else {}),
        "dataAnnotationProtocol": [
            f"Findings were read from the texts by rules ({', '.join(manifest['labelers']) or 'none'}): 1 present,"
            " 0 absent, -1 uncertain, null not mentioned. No person annotated anything."
        ],
        "machineAnnotationTools": list(manifest["labelers"]),
        "personalSensitiveInformation": [_personal(info)],
        "dataBiases": [
            "The texts carry the errors of the models, which agree with each other more often than the truth"
            " would have it, and those of the rules that read them.",
            "Who is in it, and how often which finding, is as in the image set: its hospitals, its years, its"
            " patients.",
        ],
        "dataLimitations": [
            "A consensus of models is not the truth, and no radiologist wrote or checked these texts.",
            "A finding that a text does not mention is unknown, not absent.",
        ],
        "dataUseCases": [
            "Research on reasoning, disagreement and drift of multimodal models, and on distillation from them.",
            "Not for diagnosis, triage or any decision about a patient.",
        ],
        "dataSocialImpact": (
            "Texts that sound like reports can be taken for reports. A model that is trained on them inherits"
            " their errors in the same assured wording."
        ),
        "dataReleaseMaintenancePlan": (
            "Rows of a subject who withdraws consent are taken out in a new version, with a new manifest that says"
            f" how many; {len(manifest.get('withdrawn', ()))} such withdrawals so far."
        ),
    }


def _collection(manifest: Mapping[str, Any], info: SourceInfo) -> str:
    if "imported" in manifest:
        return f"Replies of models to images of {info.title} that were had elsewhere; how is not known here."
    given = sorted({entry["given"] for entry in manifest["prompts"]})
    renderings = ", ".join(manifest["counts"]["trajectories"]["renderings"])
    simulated = " Here the replies were written by a simulator." if manifest["simulated"] else ""
    return (
        f"Each model was sent the images of {info.title}, rendered as {renderings}, with a prompt that gives away"
        f" {', '.join(given) or 'nothing'}; every reply is kept, refusals included.{simulated}"
    )


def _personal(info: SourceInfo) -> str:
    if info.name == "phantom":
        return "None: the images are generated and show no patient."
    rows = "Rows name subjects, studies and images by the image set's own, de-identified identifiers."
    return rows + (
        " Derived from credentialed health data, and to be shared under the same agreement only."
        if info.data_use == "credentialed"
        else " The texts were written about images of patients."
    )
