// Shows both documents of the relay in Swagger UI. Keys typed into "Authorize" stay in the page's memory.
"use strict";

window.ui = SwaggerUIBundle({
  dom_id: "#docs",
  urls: [
    { name: "Full contract", url: "/openapi.json" },
    { name: "Actions contract", url: "/openapi.actions.json" },
  ],
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
  layout: "StandaloneLayout",
  deepLinking: true,
  docExpansion: "none",
  defaultModelsExpandDepth: -1,
  filter: true,
  persistAuthorization: false,
  showExtensions: true,
  validatorUrl: null,
});
