"""Every path of the control plane. Nothing ends in a slash that clients of the v1 API call, nothing redirects."""
