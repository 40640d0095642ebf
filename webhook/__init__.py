"""From an AdmissionReview to a patch: decides whether a pod joins the mesh and adds the sidecar."""
