#include "postgres/libpq.h"

#include <dlfcn.h>

#include "base/error.h"

namespace holdfast::postgres {

namespace {

constexpr const char* library_name = "libpq.so.5";

void* open_library() {
  void* library = ::dlopen(library_name, RTLD_NOW | RTLD_GLOBAL);
  if (library != nullptr) return library;
  throw base::Error(base::Code::not_found, fmt::format("could not load libpq: {}", ::dlerror()),
                    "install it (apt-get install libpq5)");
}

template <typename Function>
void load(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
  if (function == nullptr) {
    base::fail(base::Code::unsupported, "cannot use {}: it has no {}", library_name, name);
  }
}

Libpq load_all() {
  void* library = open_library();
  Libpq loaded{};
  load(library, "PQclear", loaded.PQclear);
  load(library, "PQconnectPoll", loaded.PQconnectPoll);
  load(library, "PQconnectStartParams", loaded.PQconnectStartParams);
  load(library, "PQconnectdbParams", loaded.PQconnectdbParams);
  load(library, "PQconninfoFree", loaded.PQconninfoFree);
  load(library, "PQconninfoParse", loaded.PQconninfoParse);
  load(library, "PQconsumeInput", loaded.PQconsumeInput);
  load(library, "PQerrorMessage", loaded.PQerrorMessage);
  load(library, "PQexec", loaded.PQexec);
  load(library, "PQfinish", loaded.PQfinish);
  load(library, "PQflush", loaded.PQflush);
  load(library, "PQfreemem", loaded.PQfreemem);
  load(library, "PQgetCopyData", loaded.PQgetCopyData);
  load(library, "PQgetisnull", loaded.PQgetisnull);
  load(library, "PQgetlength", loaded.PQgetlength);
  load(library, "PQgetResult", loaded.PQgetResult);
  load(library, "PQgetvalue", loaded.PQgetvalue);
  load(library, "PQisBusy", loaded.PQisBusy);
  load(library, "PQnfields", loaded.PQnfields);
  load(library, "PQntuples", loaded.PQntuples);
  load(library, "PQputCopyData", loaded.PQputCopyData);
  load(library, "PQputCopyEnd", loaded.PQputCopyEnd);
  load(library, "PQresultErrorField", loaded.PQresultErrorField);
  load(library, "PQresultStatus", loaded.PQresultStatus);
  load(library, "PQsendQuery", loaded.PQsendQuery);
  load(library, "PQsendQueryParams", loaded.PQsendQueryParams);
  load(library, "PQserverVersion", loaded.PQserverVersion);
  load(library, "PQsetNoticeReceiver", loaded.PQsetNoticeReceiver);
  load(library, "PQsetnonblocking", loaded.PQsetnonblocking);
  load(library, "PQsocket", loaded.PQsocket);
  load(library, "PQstatus", loaded.PQstatus);
  return loaded;
}

}  // namespace

const Libpq& libpq() {
  static const Libpq loaded = load_all();
  return loaded;
}

}  // namespace holdfast::postgres
