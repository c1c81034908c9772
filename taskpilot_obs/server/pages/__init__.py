"""The pages: each module builds one, from the answers that the REST API gives as well."""
